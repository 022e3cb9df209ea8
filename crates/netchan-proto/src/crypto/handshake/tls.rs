//! rustls, cut down to the one handshake this protocol allows.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::ALPN;
use crate::crypto::error::HandshakeError;
use crate::crypto::identity::{LocalKey, ed25519_spki};
use crate::crypto::secret::{Fingerprint, ServerTrust};

/// Required by rustls and never sent: there is no SNI, and the key is what names the server.
pub(super) fn server_name() -> Result<ServerName<'static>, Error> {
    ServerName::try_from("netchan.invalid").map_err(|_| Error::General("server name".into()))
}

/// A client that accepts the server it trusts (`HS-3`).
pub(super) fn client_config(key: &LocalKey, trust: ServerTrust) -> Result<Arc<ClientConfig>, Error> {
    let (provider, algorithms) = provider()?;
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(NoClock))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustedServer { trust, algorithms }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// A server that accepts any client key, once the client has signed with it (`HS-4`).
pub(super) fn server_config(key: &LocalKey) -> Result<Arc<ServerConfig>, Error> {
    let (provider, algorithms) = provider()?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(NoClock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient { algorithms }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(Arc::new(config))
}

/// One cipher suite, one key exchange, one signature scheme: nothing to negotiate down (`HS-1`, `HS-2`).
fn provider() -> Result<(Arc<CryptoProvider>, WebPkiSupportedAlgorithms), Error> {
    let provider = aws_lc_rs::default_provider();
    let ed25519 = provider
        .signature_verification_algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .ok_or(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon))?;
    let algorithms = WebPkiSupportedAlgorithms { all: ed25519.1, mapping: std::slice::from_ref(ed25519) };
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        signature_verification_algorithms: algorithms,
        ..provider
    };
    Ok((Arc::new(provider), algorithms))
}

/// Raw public keys have no dates, so rustls needs no clock.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}

fn check_encoding(key: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
    match ed25519_spki(key) {
        Some(_) if rest.is_empty() => Ok(()),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

fn verify_signature(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
}

const TLS12_IS_OFF: Error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered);

/// What the verifier says through rustls of a key that is not the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("the key {0} is not the pinned one")]
struct WrongKey(Fingerprint);

/// What a failure inside rustls means here.
pub(super) fn explain(error: Error) -> HandshakeError {
    if let Error::InvalidCertificate(CertificateError::Other(other)) = &error
        && let Some(WrongKey(shown)) = other.0.downcast_ref()
    {
        return HandshakeError::WrongPin { shown: *shown };
    }
    HandshakeError::Tls(error)
}

#[derive(Debug)]
struct TrustedServer {
    trust: ServerTrust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_encoding(key, rest)?;
        if !self.trust.admits(key) {
            let wrong = WrongKey(Fingerprint::of_spki(key));
            return Err(CertificateError::Other(OtherError(Arc::new(wrong))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_IS_OFF)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_encoding(key, rest)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_IS_OFF)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
