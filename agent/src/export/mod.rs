//! Ways out of the agent. Exporters know the public types of the flow (events, connections, status) and neither the
//! inside of the ledger nor the kernel side.

pub mod otlp;
