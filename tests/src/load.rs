//! Many plain connections, as fast as one thread makes them.

use std::io::{Read as _, Write as _};

use anyhow::Result;

use crate::{scenario::Expected, sock, stage::Stage};

/// Opens, uses and closes `count` connections one after the other; on return all have ended.
pub fn connections(stage: &Stage, count: u64) -> Result<Expected> {
    let (listener, address) = sock::listen(&stage.server, 128)?;
    for _ in 0..count {
        let mut client = sock::connect(&stage.client, address)?;
        let mut server = sock::accept(&listener)?;
        client.write_all(b"question")?;
        server.read_exact(&mut [0; 8])?;
        server.write_all(b"answer")?;
        drop(server); // as a server does that was told `Connection: close`
        client.read_to_end(&mut Vec::new())?;
        drop(client);
    }
    drop(listener);
    stage.await_quiet()?;
    Ok(Expected::many(stage, count))
}
