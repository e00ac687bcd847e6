//! `k3s token rotate` by hand on one server, with the old token still in each `config.yaml`.
