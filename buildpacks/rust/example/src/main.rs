//! A small web app: says hello, and which release it is. Nothing but the standard library.

use std::env::var;
use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn main() -> Result<()> {
    let port = var("PORT").unwrap_or_else(|_| "5000".into());
    for stream in TcpListener::bind(format!("0.0.0.0:{port}"))?.incoming() {
        let stream = stream?;
        thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let release = var("PAASD_RELEASE").unwrap_or_else(|_| "none".into());
    let body = format!("Hello from paasd, release {release}\n");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
