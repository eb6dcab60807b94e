//! Judges the rules of a params file so many times, and prints the number of findings: `judging FILE TIMES`. The difference
//! between two numbers of times is what a judgement costs; `examples/instructions.sh` counts it.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a benchmark ends as a test does")]

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, times] = &arguments[..] else { panic!("usage: judging FILE TIMES") };
    let params = std::fs::read(file).unwrap();
    println!("{}", k8s_token::fuzzing::judge(&params, times.parse().unwrap()));
}
