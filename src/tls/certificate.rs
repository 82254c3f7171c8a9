//! What a certificate says: its names, and the digest that channel binding binds to.

use std::net::IpAddr;

use ring::digest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_HASH_SHA1, OID_MD5_WITH_RSA, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384,
    OID_NIST_HASH_SHA512, OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SHA1_WITH_RSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// The `tls-server-end-point` channel binding of a certificate (RFC 5929 §4.1): its hash by the hash of
/// its own signature, where MD5 and SHA-1 are replaced by SHA-256.
///
/// `None` for signatures without a hash, such as Ed25519, and for what is no certificate.
pub fn end_point_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = parse(certificate)?;
    let algorithm = match SignatureAlgorithm::try_from(&parsed.signature_algorithm) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => {
            hash_algorithm(parameters.hash_algorithm_oid())
        }
        _ => hash_algorithm(&parsed.signature_algorithm.algorithm),
    }?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn hash_algorithm(oid: &Oid<'_>) -> Option<&'static digest::Algorithm> {
    let sha256 = [
        OID_HASH_SHA1,
        OID_MD5_WITH_RSA,
        OID_PKCS1_MD5WITHRSAENC,
        OID_SHA1_WITH_RSA,
        OID_PKCS1_SHA1WITHRSA,
        OID_NIST_HASH_SHA256,
        OID_PKCS1_SHA256WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
    ];
    let sha384 = [
        OID_NIST_HASH_SHA384,
        OID_PKCS1_SHA384WITHRSA,
        OID_SIG_ECDSA_WITH_SHA384,
    ];
    let sha512 = [
        OID_NIST_HASH_SHA512,
        OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA512,
    ];
    if sha256.contains(oid) {
        Some(&digest::SHA256)
    } else if sha384.contains(oid) {
        Some(&digest::SHA384)
    } else if sha512.contains(oid) {
        Some(&digest::SHA512)
    } else {
        None
    }
}

/// Whether a client's certificate is for the SQL role `user`: its common name, or one of its DNS or
/// e-mail alternative names, is the role's name.
pub fn is_for_user(certificate: &[u8], user: &str) -> bool {
    let Some(parsed) = parse(certificate) else {
        return false;
    };
    common_names(&parsed).any(|name| name == user)
        || alternative_names(&parsed).iter().any(|name| {
            let (GeneralName::DNSName(name) | GeneralName::RFC822Name(name)) = name else {
                return false;
            };
            *name == user
        })
}

/// Whether a server's certificate is for `host`, as libpq's `verify-full` has it: an alternative name of
/// the host's kind, or the common name where the certificate has no such alternative names.
///
/// A `*` stands for the first label of a DNS name.
pub fn is_for_host(certificate: &X509Certificate<'_>, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    let mut has_names = false;
    for name in alternative_names(certificate) {
        match (name, address) {
            (GeneralName::DNSName(pattern), None) => {
                has_names = true;
                if matches_host(pattern, host) {
                    return true;
                }
            }
            (GeneralName::IPAddress(bytes), Some(address)) => {
                has_names = true;
                let is_same = match address {
                    IpAddr::V4(address) => address.octets().as_slice() == *bytes,
                    IpAddr::V6(address) => address.octets().as_slice() == *bytes,
                };
                if is_same {
                    return true;
                }
            }
            _ => (),
        }
    }
    !has_names && common_names(certificate).any(|pattern| matches_host(pattern, host))
}

fn matches_host(pattern: &str, host: &str) -> bool {
    if let Some(suffix) = pattern.strip_prefix("*.") {
        return host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && suffix.contains('.') && rest.eq_ignore_ascii_case(suffix)
        });
    }
    pattern.eq_ignore_ascii_case(host)
}

fn parse(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(certificate)
        .ok()
        .map(|(_, parsed)| parsed)
}

fn common_names<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a str> {
    certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .filter(|name| !name.contains('\0'))
}

fn alternative_names<'a, 'b>(certificate: &'a X509Certificate<'b>) -> &'a [GeneralName<'b>] {
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) | Err(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::{end_point_digest, is_for_host, is_for_user, parse};
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn certificate(common: &str, names: &[&str], key: &KeyPair) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.self_signed(key).unwrap().der().to_vec()
    }

    #[test]
    fn digests_follow_the_signature() {
        let length = |key: KeyPair| {
            end_point_digest(&certificate("x", &[], &key)).map(|digest| digest.len())
        };
        assert_eq!(length(KeyPair::generate().unwrap()), Some(32));
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(length(p384), Some(48));
        assert_eq!(length(KeyPair::generate_for(&PKCS_ED25519).unwrap()), None);
        assert_eq!(end_point_digest(b"no certificate"), None);
    }

    #[test]
    fn hosts_are_matched_as_libpq_does() {
        let key = KeyPair::generate().unwrap();
        let check = |common: &str, names: &[&str], host: &str, expect: bool| {
            let der = certificate(common, names, &key);
            assert_eq!(
                is_for_host(&parse(&der).unwrap(), host),
                expect,
                "{common} {names:?} {host}"
            );
        };
        check("db.example.org", &[], "DB.example.org", true);
        check("db.example.org", &["other.org"], "db.example.org", false);
        check("x", &["*.example.org"], "db.example.org", true);
        check("x", &["*.example.org"], "a.db.example.org", false);
        check("x", &["*.example.org"], "example.org", false);
        check("x", &["*.org"], "example.org", false);
        check("x", &["127.0.0.1"], "127.0.0.1", true);
        check("x", &["127.0.0.1"], "127.0.0.2", false);
        check("127.0.0.1", &["a.org"], "127.0.0.1", true);
    }

    #[test]
    fn users_are_matched_exactly() {
        let key = KeyPair::generate().unwrap();
        let der = certificate("ada", &["grace", "lin@example.org"], &key);
        for user in ["ada", "grace", "lin@example.org"] {
            assert!(is_for_user(&der, user), "{user}");
        }
        assert!(!is_for_user(&der, "Ada"));
        assert!(!is_for_user(b"", "ada"));
    }
}
