//! Certificates of every kind that PostgreSQL servers and their clients show.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use crate::postgres::make_folder;

/// A folder of certificates, which goes with the value. `ca.crt` signs `server.crt` (for 127.0.0.1 alone)
/// and `ada.crt` (of a client); `other.crt` signs nothing.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Certificates {
        let certificates = Certificates {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        make_folder(certificates.folder.path());
        let ca = authority("pgherd test authority");
        certificates.write("ca.crt", &ca.pem());
        certificates.write("other.crt", &authority("another authority").pem());
        for (name, common, names) in [
            ("server", "pgherd test server", vec!["127.0.0.1".to_owned()]),
            ("ada", "ada", Vec::new()),
        ] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(names).expect("names");
            params.distinguished_name.push(DnType::CommonName, common);
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let signed = params.signed_by(&key, &ca).expect("signed");
            certificates.write(&format!("{name}.crt"), &signed.pem());
            certificates.write(&format!("{name}.key"), &key.serialize_pem());
        }
        certificates
    }

    /// The pair `self.crt`, `self.key` as PostgreSQL's documentation makes one for `host`.
    pub(crate) fn make_self_signed(&self, host: &str) {
        let subject = format!("/CN={host}");
        self.openssl(&[
            "req", "-new", "-x509", "-days", "2", "-nodes", "-out", "self.crt", "-keyout",
            "self.key", "-subj", &subject,
        ]);
        self.own("self.key");
    }

    /// An authority `root.crt` and `v1.crt` signed by it, of X.509 version 1, as `openssl x509 -req` makes
    /// one for `host` without an extension file.
    pub(crate) fn make_version_one(&self, host: &str) {
        let subject = format!("/CN={host}");
        self.openssl(&[
            "req", "-new", "-x509", "-days", "2", "-nodes", "-out", "root.crt", "-keyout",
            "root.key", "-subj", "/CN=root",
        ]);
        self.openssl(&[
            "req", "-new", "-nodes", "-out", "v1.csr", "-keyout", "v1.key", "-subj", &subject,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "v1.csr",
            "-days",
            "2",
            "-CA",
            "root.crt",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-out",
            "v1.crt",
        ]);
        self.own("v1.key");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let status = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl runs").success(), "{arguments:?}");
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder is ours");
        self.own(name);
    }

    /// PostgreSQL takes a key only from a file that nobody else may read.
    fn own(&self, name: &str) {
        let path: &Path = &self.path(name);
        let folder = fs::metadata(self.folder.path()).expect("just made");
        std::os::unix::fs::chown(path, Some(folder.uid()), Some(folder.gid())).expect("may chown");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("may chmod");
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}
