//! Dialing servers by their addresses, with a file of known hosts: also one that is met for the first time.

use netchan_proto::crypto::HandshakeError;

use crate::address::Address;
use crate::client::{self, Session};
use crate::config::Config;
use crate::dialer::{DialError, Dialer};
use crate::identity::AccessSecret;
use crate::known_hosts::{FirstUse, KnownHosts, KnownHostsError, parse};

impl KnownHosts {
    /// Dials the server at an address and insists on its key as the file, read anew, has it.
    ///
    /// A server that is not known is refused, unless `first_use` says otherwise: then it is remembered as soon as it has shown
    /// that it knows `access_secret`. The session insists on that key from then on, whatever the file comes to say.
    ///
    /// # Errors
    ///
    /// [`DialError`]: [`KnownHosts`](DialError::KnownHosts) for a server that is not known, one whose key has changed
    /// ([`KeyChanged`](crate::known_hosts::KeyChanged)) and a file that cannot be read; at first use [`Unconfirmed`](DialError::Unconfirmed) for one that does
    /// not know the secret, and [`NotRemembered`](DialError::NotRemembered) when the file cannot be written. Else as
    /// [`dial`](crate::dial()).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it completes, the attempt is given up; the server may have been remembered.
    pub async fn dial(
        &self,
        address: &str,
        access_secret: Option<AccessSecret>,
        first_use: FirstUse,
        config: Config,
    ) -> Result<Session, DialError> {
        let address = parse(address)?;
        self.aside("read", Self::reload).await?;
        let known = self.known(&address);
        if !known.is_empty() {
            let keys: Vec<_> = known.iter().map(|(_, key)| *key).collect();
            let dialer = Dialer::pinned(address.clone(), &keys, access_secret, config);
            return match dialer.connect(None).await {
                Ok(link) => Ok(client::begin(dialer, link)),
                Err(DialError::Handshake { error: HandshakeError::WrongPin { shown }, .. }) => {
                    Err(self.changed(&address, known, shown).into())
                }
                Err(error) => Err(error),
            };
        }
        match (first_use, access_secret) {
            (FirstUse::Refuse, _) => Err(self.unknown(&address).into()),
            (FirstUse::TrustAndRemember, None) => {
                Err(KnownHostsError::FirstUseWithoutSecret { address }.into())
            }
            (FirstUse::TrustAndRemember, Some(secret)) => self.meet(address, secret, config).await,
        }
    }

    /// Dials a server for the first time.
    async fn meet(
        &self,
        address: Address,
        access_secret: AccessSecret,
        config: Config,
    ) -> Result<Session, DialError> {
        let handshake_timeout = config.limits.handshake_timeout;
        let dialer = Dialer::first_use(address.clone(), access_secret, config);
        // Comes back only once the server has confirmed the link.
        let link = dialer.connect(None).await?;
        let Some(key) = link.peer().fingerprint() else {
            let reason = "it has no key".to_owned();
            return Err(DialError::Unconfirmed { address, reason });
        };
        let session = client::begin(dialer.insisting_on(key), link);
        let place = address.clone();
        match self.aside("write", move |hosts| hosts.add_first(&place, key)).await {
            Ok(()) => {
                tracing::info!(%address, fingerprint = %key, path = %self.path().display(), "remembered a server");
                Ok(session)
            }
            Err(error) => {
                // The server is told; what was not delivered does not exist.
                _ = session.close(handshake_timeout).await;
                Err(match error {
                    changed @ KnownHostsError::KeyChanged(_) => changed.into(),
                    error => DialError::NotRemembered { address, fingerprint: key, error: Box::new(error) },
                })
            }
        }
    }
}
