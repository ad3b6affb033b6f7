//! The harness itself: a scenario that fails must not do so because of it.

use std::time::Duration;

use acceptance::link::Moment;
use acceptance::{Link, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that says back what it hears.
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

async fn says(stream: &mut TcpStream, text: &str) -> anyhow::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).await?;
    Ok(String::from_utf8(heard)?)
}

#[tokio::test]
async fn a_link_that_is_cut_refuses_and_comes_back_on_its_port() -> anyhow::Result<()> {
    let link = Link::to(echo().await?)?;
    let mut before = TcpStream::connect(link.address()).await?;
    assert_eq!(says(&mut before, "hello").await?, "hello");

    link.cut().await?;
    assert!(says(&mut before, "hello").await.is_err());
    assert!(TcpStream::connect(link.address()).await.is_err());

    link.mend().await?;
    let mut after = TcpStream::connect(link.address()).await?;
    assert_eq!(says(&mut after, "again").await?, "again");
    Ok(())
}

#[tokio::test]
async fn a_hold_keeps_back_what_comes_from_its_moment_on() -> anyhow::Result<()> {
    let link = Link::to(echo().await?)?;
    let hold = link.hold(Moment::answer("-two"));
    let mut stream = TcpStream::connect(link.address()).await?;
    stream.write_all(b"one-two-three").await?;
    let mut heard = [0; 3];
    stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"one");

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
    let mut heard = [0; 8];
    stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"patience");
    Ok(())
}

#[tokio::test]
async fn waiting_names_what_did_not_come() {
    let impatient = acceptance::until::within(Duration::from_millis(50), "Godot", async || Ok(None::<()>)).await;
    assert_eq!(impatient.unwrap_err().to_string(), "waited 0 s for Godot: it did not come");
    let mut asked = 0;
    let patient = until("the third time", async || {
        asked += 1;
        anyhow::ensure!(asked > 1, "an error is only not yet");
        Ok(asked == 3)
    });
    patient.await.unwrap();
}
