mod relay;

fn main() {}
