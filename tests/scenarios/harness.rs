//! Tests of the harness itself: the link and the polling functions.

use std::time::Duration;

use acceptance::link::Moment;
use acceptance::{Link, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Starts a server that sends back what it receives, and returns its address.
async fn echo() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(address)
}

/// Sends a text and reads as many bytes back.
async fn exchange(stream: &mut TcpStream, text: &str) -> anyhow::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut received = vec![0; text.len()];
    stream.read_exact(&mut received).await?;
    Ok(String::from_utf8(received)?)
}

#[tokio::test]
async fn a_link_that_is_cut_refuses_and_comes_back_on_its_port() -> anyhow::Result<()> {
    let link = Link::to(echo().await?)?;
    let mut before = TcpStream::connect(link.address()).await?;
    assert_eq!(exchange(&mut before, "hello").await?, "hello");

    link.cut().await?;
    assert!(exchange(&mut before, "hello").await.is_err());
    assert!(TcpStream::connect(link.address()).await.is_err());

    link.mend().await?;
    let mut after = TcpStream::connect(link.address()).await?;
    assert_eq!(exchange(&mut after, "again").await?, "again");
    Ok(())
}

#[tokio::test]
async fn a_hold_keeps_back_what_comes_from_its_moment_on() -> anyhow::Result<()> {
    let link = Link::to(echo().await?)?;
    let hold = link.hold(Moment::answer("-two"));
    let mut stream = TcpStream::connect(link.address()).await?;
    stream.write_all(b"one-two-three").await?;
    let mut received = [0; 3];
    stream.read_exact(&mut received).await?;
    assert_eq!(&received, b"one");

    hold.reached().await?;
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await.is_err());
    hold.release();
    let mut rest = [0; 10];
    stream.read_exact(&mut rest).await?;
    assert_eq!(&rest, b"-two-three");
    Ok(())
}

#[tokio::test]
async fn a_frozen_link_keeps_its_connections_and_loses_nothing() -> anyhow::Result<()> {
    let link = Link::to(echo().await?)?;
    let mut stream = TcpStream::connect(link.address()).await?;
    link.freeze();
    stream.write_all(b"patience").await?;
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await.is_err());
    link.mend().await?;
    let mut received = [0; 8];
    stream.read_exact(&mut received).await?;
    assert_eq!(&received, b"patience");
    Ok(())
}

#[tokio::test]
async fn waiting_names_what_did_not_come() {
    let expired = acceptance::until::within(Duration::from_millis(50), "the impossible", async || Ok(None::<()>)).await;
    assert_eq!(expired.unwrap_err().to_string(), "timed out after 0 s waiting for the impossible: the condition did not hold");
    let mut checks = 0;
    let reached = until("the third check", async || {
        checks += 1;
        anyhow::ensure!(checks > 1, "an error means not yet");
        Ok(checks == 3)
    });
    reached.await.unwrap();
}
