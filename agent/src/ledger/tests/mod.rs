//! Tests of the ledger: a model of the kernel's sockets (`script`), the lives that they lead (`scenarios`), a stage that
//! plays them and checks after each event what must always hold (`stage`); single lives (`handshake`, `life`),
//! the ledger's books (`books`), single losses (`loss`, `embryo`), sockets without cookies (`address`), and any order and loss of events (`property`), the walk over what is tracked (`sweep`).

mod address;
mod books;
mod embryo;
mod handshake;
mod life;
mod loss;
mod property;
mod reconcile;
mod scenarios;
mod script;
mod stage;
mod sweep;
