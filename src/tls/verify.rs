//! How much of a server's certificate is verified, as libpq's modes say.
//!
//! Whatever the mode, the server proves in the handshake that it holds the certificate's key: the channel
//! binding of SCRAM rests on that.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::tls::certificate;

/// The certificates of the CA file.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    /// The same, whole: a server may show one of them as its own.
    pub(super) anchors: Vec<CertificateDer<'static>>,
}

/// What is verified of a certificate.
#[derive(Debug)]
pub(super) enum Check {
    Nothing,
    Chain(Authorities),
    ChainAndName(Authorities),
}

/// The verifier of one mode.
#[derive(Debug)]
pub(super) struct Verifier {
    check: Check,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(check: Check, algorithms: WebPkiSupportedAlgorithms) -> Verifier {
        Verifier { check, algorithms }
    }

    /// Whether the certificate leads to one of the authorities, and is valid at this time.
    fn verify_chain(
        &self,
        authorities: &Authorities,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = parse(end_entity)?;
        if authorities.anchors.contains(end_entity) {
            // A self-signed certificate that is trusted itself, as PostgreSQL's documentation makes one.
            return verify_time(&parsed, now);
        }
        match ParsedCertificate::try_from(end_entity) {
            Ok(webpki) => verify_server_cert_signed_by_trust_anchor(
                &webpki,
                &authorities.roots,
                intermediates,
                now,
                self.algorithms.all,
            ),
            Err(_version_one) => {
                verify_time(&parsed, now)?;
                self.verify_version_one(authorities, &parsed)
            }
        }
    }

    /// Certificates of X.509 version 1, as `openssl x509 -req` makes without an extension file, are none to
    /// webpki. They have no extensions to heed, so an authority's signature is all there is to verify.
    fn verify_version_one(
        &self,
        authorities: &Authorities,
        certificate: &X509Certificate<'_>,
    ) -> Result<(), Error> {
        let is_signed = certificate.extensions().is_empty()
            && authorities.anchors.iter().any(|anchor| {
                parse(anchor).is_ok_and(|authority| {
                    authority.subject() == certificate.issuer()
                        && self.is_signed_by(certificate, &authority)
                })
            });
        if is_signed {
            Ok(())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn is_signed_by(
        &self,
        certificate: &X509Certificate<'_>,
        authority: &X509Certificate<'_>,
    ) -> bool {
        let key = authority.public_key();
        self.algorithms.all.iter().any(|algorithm| {
            algorithm
                .verify_signature(
                    &key.subject_public_key.data,
                    certificate.tbs_certificate.as_ref(),
                    &certificate.signature_value.data,
                )
                .is_ok()
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.check {
            Check::Nothing => (),
            Check::Chain(authorities) => {
                self.verify_chain(authorities, end_entity, intermediates, now)?;
            }
            Check::ChainAndName(authorities) => {
                self.verify_chain(authorities, end_entity, intermediates, now)?;
                if !certificate::is_for_host(&parse(end_entity)?, &server_name.to_str()) {
                    return Err(CertificateError::NotValidForName.into());
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ParsedCertificate::try_from(certificate).is_ok() {
            return verify_tls13_signature(message, certificate, signature, &self.algorithms);
        }
        let parsed = parse(certificate)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|error| {
            let error = OtherError(std::sync::Arc::new(error));
            Error::InvalidCertificate(CertificateError::Other(error))
        })
}

fn verify_time(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .ok_or(CertificateError::BadEncoding)?;
    let validity = certificate.validity();
    if now < validity.not_before {
        Err(CertificateError::NotValidYet.into())
    } else if validity.not_after < now {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}
