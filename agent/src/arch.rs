//! What depends on the CPU's architecture, all of it.

/// CPUs of this architecture show their stores to each other in program order (total store order). Lanes rely on it,
/// because no instruction that every kernel since 5.10 gives to a program orders stores on the others.
pub const STORES_IN_ORDER: bool = cfg!(any(target_arch = "x86_64", target_arch = "s390x"));
