//! TLS as netchan's own handshake uses it: TLS 1.3, both sides prove a raw public key, X25519MLKEM768, AES-256-GCM, no
//! resumption.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::wire::Upgrade;
use crate::Failure;

/// RFC 8410's wrapping of a 32-byte Ed25519 seed as PKCS #8.
const ED25519_PKCS8_HEADER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A key pair of one side, made for one run.
pub(super) struct Identity {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    pub(super) fn generate() -> Result<Self, Failure> {
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![kx_group::X25519MLKEM768],
            ..default_provider()
        };
        let mut pkcs8 = [0; 48];
        pkcs8[..16].copy_from_slice(&ED25519_PKCS8_HEADER);
        provider.secure_random.fill(&mut pkcs8[16..]).map_err(|_| "the system gave no random bytes")?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let key = provider.key_provider.load_private_key(secret)?;
        let public = key.public_key().ok_or("the provider does not tell public keys")?.to_vec();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key));
        Ok(Self { provider: Arc::new(provider), certified })
    }

    /// What the other side must know to recognise this one.
    pub(super) fn public_key(&self) -> &[u8] {
        &self.certified.cert[0]
    }

    /// The accepting role toward the holder of `peer`.
    pub(super) fn acceptor(&self, peer: Vec<u8>) -> Result<Accept, Failure> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(Pinned { provider: self.provider.clone(), key: peer }))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified.clone())));
        config.send_tls13_tickets = 0;
        Ok(Accept(TlsAcceptor::from(Arc::new(config))))
    }

    /// The connecting role toward the holder of `peer`.
    pub(super) fn connector(&self, peer: Vec<u8>) -> Result<Connect, Failure> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { provider: self.provider.clone(), key: peer }))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.certified.clone(),
            )));
        config.resumption = Resumption::disabled();
        Ok(Connect(TlsConnector::from(Arc::new(config))))
    }
}

/// Upgrades accepted connections.
#[derive(Clone)]
pub(super) struct Accept(TlsAcceptor);

impl Upgrade for Accept {
    type Stream = server::TlsStream<TcpStream>;

    async fn upgrade(&self, tcp: TcpStream) -> io::Result<Self::Stream> {
        self.0.accept(tcp).await
    }
}

/// Upgrades connections made.
#[derive(Clone)]
pub(super) struct Connect(TlsConnector);

impl Upgrade for Connect {
    type Stream = client::TlsStream<TcpStream>;

    async fn upgrade(&self, tcp: TcpStream) -> io::Result<Self::Stream> {
        let name = ServerName::try_from("netchan-bench").expect("a valid name");
        self.0.connect(name, tcp).await
    }
}

/// Accepts one key and no other.
#[derive(Debug)]
struct Pinned {
    provider: Arc<CryptoProvider>,
    key: Vec<u8>,
}

impl Pinned {
    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        let known = presented.as_ref() == self.key;
        if known { Ok(()) } else { Err(Error::General("the peer has another key than announced".into())) }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A handshake between two identities, the server expecting the client to have the key `expected`.
    async fn handshake(client: &Identity, server: &Identity, expected: &[u8]) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accept = server.acceptor(expected.to_vec()).unwrap();
        let connect = client.connector(server.public_key().to_vec()).unwrap();
        let accepting = tokio::spawn(async move {
            let mut stream = accept.upgrade(listener.accept().await?.0).await?;
            stream.write_all(&[1]).await?;
            stream.flush().await
        });
        let mut stream = connect.upgrade(TcpStream::connect(address).await?).await?;
        stream.read_exact(&mut [0]).await?;
        let (_, session) = stream.get_ref();
        assert_eq!(
            session.negotiated_key_exchange_group().unwrap().name(),
            rustls::NamedGroup::X25519MLKEM768
        );
        assert!(!session.is_handshaking());
        accepting.await?
    }

    #[tokio::test]
    async fn both_sides_prove_their_keys() {
        let (client, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        handshake(&client, &server, client.public_key()).await.unwrap();
        handshake(&client, &server, server.public_key()).await.unwrap_err();
    }
}
