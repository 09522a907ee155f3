//! Programs for the stories: what they see is told through a shared list of words.
#![allow(dead_code, reason = "each story uses some")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex, PoisonError};

use resilver_host::{Host, Stream};
use resilver_sim_kernel::{Kernel, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// What the programs of a story have said, in order.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    pub(crate) fn say(&self, word: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(word.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.all().iter().any(|said| said == word)
    }
}

/// A program from an async closure.
pub(crate) fn program<F>(
    said: &Said,
    run: impl Fn(Host, watch::Receiver<bool>, Said) -> F + Send + Sync + 'static,
) -> Program
where
    F: Future<Output = i32> + Send + 'static,
{
    let said = said.clone();
    Arc::new(move |host, shutdown| Box::pin(run(host, shutdown, said.clone())))
}

/// Answers every byte with itself, until killed.
pub(crate) fn echo(said: &Said, port: u16) -> Program {
    program(said, move |host, _, said| async move {
        let listener = host.net.bind(&format!("0.0.0.0:{port}")).await.unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = said.clone();
            tokio::spawn(async move {
                let mut buf = [0; 1024];
                loop {
                    match stream.read(&mut buf).await {
                        Ok(0) => return said.say("echo: eof"),
                        Ok(len) => stream.write_all(&buf[..len]).await.unwrap(),
                        Err(error) => return said.say(format!("echo: {:?}", error.kind())),
                    }
                }
            });
        }
    })
}

/// Sends a byte and waits for it to come back.
pub(crate) async fn ping(stream: &mut Box<dyn Stream>, byte: u8) -> std::io::Result<()> {
    stream.write_all(&[byte]).await?;
    let mut back = [0];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, [byte]);
    Ok(())
}

/// Steps until `condition` holds, for at most `millis`.
pub(crate) fn until(kernel: &mut Kernel, millis: u64, what: &str, mut condition: impl FnMut(&Kernel) -> bool) {
    for _ in 0..millis {
        if condition(kernel) {
            return;
        }
        kernel.step();
    }
    panic!("waited {millis} ms in vain: {what}");
}

/// Steps for so long.
pub(crate) fn pass(kernel: &mut Kernel, millis: u64) {
    for _ in 0..millis {
        kernel.step();
    }
}
