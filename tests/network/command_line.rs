//! The command line: kubeconfigs as kubectl reads them, proxies, certificates, the terminal, and the help.

mod kubeconfig;
mod lines;
mod login;
mod manual;
mod proxy;
mod terminal;
mod trust;
