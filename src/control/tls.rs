//! TLS towards servers with an `https`, `wss` or `tcps` URL.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use crate::upstream::catalog::{Catalog, Target};

/// What all TLS connections to servers have in common; none if no server needs TLS.
///
/// Trusts what the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise). The error is
/// a sentence for the operator.
pub(super) fn client(catalog: &Catalog) -> Result<Option<Arc<ClientConfig>>, String> {
    let is_tls = |target: &Target| {
        target.endpoints().is_some_and(|all| all.iter().any(|(_, endpoint)| endpoint.tls))
    };
    if !catalog.iter().any(|(_, server)| is_tls(&server.target)) {
        return Ok(None);
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (trusted, _) = roots.add_parsable_certificates(found.certs);
    if trusted == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "no certificate authority found{why}, but a server has an https, wss or tcps URL; \
             install the package ca-certificates or set SSL_CERT_FILE"
        ));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can not be set up: {error}"))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}
