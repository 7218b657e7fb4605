//! The five verbs against a cluster: enable, get, create, delete, disable.
