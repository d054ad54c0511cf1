//! Makes the certificates of the servers that speak TLS.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, Error, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Files in PEM: the authority's certificate, and the one that it gave to all servers.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
}

impl Certificates {
    /// Makes them for `127.0.0.1` and `localhost`, as files in `folder`.
    pub(crate) fn write(folder: &Path) -> Certificates {
        let [authority, server, key] =
            make().unwrap_or_else(|error| panic!("cannot make certificates: {error}"));
        let file = |name: &str, pem: String| {
            let path = folder.join(name);
            fs::write(&path, pem)
                .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            path
        };
        Certificates {
            authority: file("ca.pem", authority),
            server: file("server.pem", server),
            server_key: file("server.key", key),
        }
    }
}

fn make() -> Result<[String; 3], Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "cluster-harness authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    // No extended usage: a server shows it as a client too, to the other servers.
    let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "cluster-harness server");
    params.use_authority_key_identifier_extension = true;
    let server = params.signed_by(&key, &authority)?;
    Ok([authority.pem(), server.pem(), key.serialize_pem()])
}
