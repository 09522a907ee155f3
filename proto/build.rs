//! Compiles the contracts with protox: no protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let configure = || tonic_prost_build::configure().bytes(".");
    configure().compile_fds(protox::compile(["resilver/common.proto"], ["proto"])?)?;
    let packages = ["contract", "store", "internal", "agent", "locks"];
    let descriptors = protox::compile(packages.map(|name| format!("resilver/{name}.proto")), ["proto"])?;
    configure().extern_path(".resilver.common.v1", "crate::common").compile_fds(descriptors)?;
    Ok(())
}
