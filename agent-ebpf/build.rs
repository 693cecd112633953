//! Tells aya-ebpf the architecture whose registers it shall know.

fn main() -> aya_build::Result<()> {
    aya_build::emit_bpf_target_arch_cfg()
}
