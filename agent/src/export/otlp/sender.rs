//! What a worker needs to send: requests made of items, and a way for them.

use std::sync::Arc;

use super::groups::Groups;
use super::protobuf::Writer;
use super::request::Requests;
use super::transport::Transport;
use super::worker::Sent;
use crate::status::Board;

/// Encodes items of one signal and sends them.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) requests: Requests,
    pub(super) transport: Transport,
    /// What the agent knows while it sends.
    pub(super) board: Arc<Board>,
}

impl Sender {
    /// Sends as much of a batch as one request may hold. `encode` writes the fields of one item.
    pub(super) fn send<T>(&mut self, batch: impl IntoIterator<Item = T>, encode: impl FnMut(T, &mut Writer)) -> Sent {
        let (request, items) = self.requests.encode(batch, encode);
        Sent { items, answer: self.transport.send(&request) }
    }

    /// The same for items that do not all belong to the agent, see [`Requests::encode_grouped`].
    pub(super) fn send_grouped<T>(
        &mut self,
        batch: impl IntoIterator<Item = T>,
        group: impl FnMut(&T, &mut Groups) -> Option<usize>,
        encode: impl FnMut(T, &mut Writer),
    ) -> Sent {
        let (request, items) = self.requests.encode_grouped(batch, group, encode);
        Sent { items, answer: self.transport.send(&request) }
    }
}
