//! Tells the linker that Node.js itself brings the functions of Node-API.

fn main() {
    napi_build::setup();
}
