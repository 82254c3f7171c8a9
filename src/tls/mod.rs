//! TLS with clients and with servers: certificates are loaded once, and a reload makes a new [`Tls`].
//!
//! Towards servers the modes are libpq's
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>): `require` without a
//! CA encrypts and verifies nothing, and with a CA is `verify-ca`.

pub mod certificate;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode};
use verify::{Check, Verifier};

/// The name of PostgreSQL's protocol in ALPN, required of direct TLS.
pub const ALPN: &[u8] = b"postgresql";

/// What cannot be loaded, as a sentence without a full stop, with the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("could not read \"{}\": {problem}", .file.display())]
    File { file: PathBuf, problem: String },
    #[error("certificate \"{}\" and key \"{}\" do not serve: {problem}", .certificate.display(), .key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        problem: String,
    },
    #[error("tls.mode needs tls.certificate and tls.key")]
    NoCertificate,
    #[error("server_tls.mode verify-ca and verify-full need server_tls.ca")]
    NoAuthority,
}

/// Everything TLS of one configuration. Immutable; shared by `Arc`, replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What clients may and must do.
    pub mode: ClientTlsMode,
    /// `None` when no certificate is configured: SSLRequest is answered with `N`.
    pub acceptor: Option<Acceptor>,
    /// Shared by the pools.
    pub connector: Arc<ServerConnector>,
}

impl Tls {
    /// Reads the files that the configuration names.
    pub fn load(client: &ClientTls, server: &ServerTls) -> Result<Tls, TlsError> {
        let acceptor = match (&client.certificate, &client.key) {
            _ if client.mode == ClientTlsMode::Disable => None,
            (Some(certificate), Some(key)) => Some(Acceptor::load(
                certificate,
                key,
                client.client_ca.as_deref(),
            )?),
            _ if client.mode == ClientTlsMode::Require => return Err(TlsError::NoCertificate),
            _ => None,
        };
        Ok(Tls {
            mode: client.mode,
            acceptor,
            connector: Arc::new(ServerConnector::load(server)?),
        })
    }
}

/// Our side of TLS with clients.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// For tokio-rustls.
    pub config: Arc<ServerConfig>,
    /// The `tls-server-end-point` digest of our certificate; `None` where its signature has no hash.
    pub end_point: Option<Vec<u8>>,
    /// Whether a client's certificate is verified, so that it can stand for a password.
    pub verifies_clients: bool,
}

impl Acceptor {
    fn load(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Acceptor, TlsError> {
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
        let end_point = chain
            .first()
            .and_then(|certificate| certificate::end_point_digest(certificate));
        let broken = |error: rustls::Error| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            problem: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(broken)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots(file)?.into(), provider())
                        .allow_unauthenticated()
                        .build()
                        .map_err(|error| unreadable(file, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, private).map_err(broken)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // As PostgreSQL: sessions are long, and a resumed one would save little.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Acceptor {
            config: Arc::new(config),
            end_point,
            verifies_clients: client_ca.is_some(),
        })
    }
}

/// Our side of TLS with servers, for each mode.
#[derive(Clone, Debug)]
pub struct ServerConnector {
    /// The mode of servers that do not say their own.
    pub mode: ServerTlsMode,
    /// Encrypts; verifies the chain only if a CA is configured.
    encrypted: Arc<ClientConfig>,
    /// `None` without a CA.
    verified: Option<Verified>,
}

#[derive(Clone, Debug)]
struct Verified {
    chain: Arc<ClientConfig>,
    chain_and_name: Arc<ClientConfig>,
}

impl ServerConnector {
    fn load(server: &ServerTls) -> Result<ServerConnector, TlsError> {
        let verified = match &server.ca {
            None if matches!(
                server.mode,
                ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull
            ) =>
            {
                return Err(TlsError::NoAuthority);
            }
            None => None,
            Some(file) => {
                let anchors = certificates(file)?;
                let roots = roots_of(file, &anchors)?;
                let connector = |check: fn(verify::Authorities) -> Check| {
                    let authorities = verify::Authorities {
                        roots: roots.clone(),
                        anchors: anchors.clone(),
                    };
                    client_config(check(authorities)).map_err(|error| unreadable(file, &error))
                };
                Some(Verified {
                    chain: connector(Check::Chain)?,
                    chain_and_name: connector(Check::ChainAndName)?,
                })
            }
        };
        let encrypted = match &verified {
            Some(verified) => Arc::clone(&verified.chain),
            None => client_config(Check::Nothing).map_err(|error| TlsError::File {
                file: PathBuf::new(),
                problem: error.to_string(),
            })?,
        };
        Ok(ServerConnector {
            mode: server.mode,
            encrypted,
            verified,
        })
    }

    /// The configuration of a mode; `None` for `disable`, and for a verifying mode without a CA.
    pub fn connector(&self, mode: ServerTlsMode) -> Option<Arc<ClientConfig>> {
        let verified = self.verified.as_ref();
        match mode {
            ServerTlsMode::Disable => None,
            ServerTlsMode::Prefer | ServerTlsMode::Require => Some(Arc::clone(&self.encrypted)),
            ServerTlsMode::VerifyCa => verified.map(|verified| Arc::clone(&verified.chain)),
            ServerTlsMode::VerifyFull => {
                verified.map(|verified| Arc::clone(&verified.chain_and_name))
            }
        }
    }
}

fn client_config(check: Check) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(check, algorithms)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, &error))?;
    if found.is_empty() {
        return Err(unreadable(file, &"it holds no certificate"));
    }
    Ok(found)
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    roots_of(file, &certificates(file)?)
}

fn roots_of(file: &Path, anchors: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots
            .add(anchor.clone())
            .map_err(|error| unreadable(file, &error))?;
    }
    Ok(roots)
}

fn unreadable(file: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        file: file.to_owned(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests;
