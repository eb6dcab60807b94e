//! A person's command line: kubeconfigs as kubectl reads them, proxies, certificates, the terminal, and what the
//! program says of itself.

mod kubeconfig;
mod lines;
mod login;
mod manual;
mod proxy;
mod terminal;
mod trust;
