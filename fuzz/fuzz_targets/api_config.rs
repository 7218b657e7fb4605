//! Any configuration of the server and any NFS address: an error, or one that means the same when it is written out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uimgacc_server::Config;
use uimgacc_types::NfsAddress;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text) {
        let access = config.access(|_| Ok("key".to_owned())).ok();
        assert!(access.is_none_or(|access| access.clusters.len() == config.clusters.len()));
    }
    if let Ok(store) = text.parse::<NfsAddress>() {
        let again = store.to_string().parse::<NfsAddress>();
        let again = again.expect("what is shown can be read");
        assert_eq!((again.servers, again.path), (store.servers, store.path));
    }
});
