//! Values are given as flags: a test that sets variables would change them for all the others.

use std::fs;

use super::*;

crate::secret!(StoreUrl: "STORE_URL_OF_THE_TEST", "store-url", ["postgres"], "Where the store is");
crate::secret!(BrokerUrl: "BROKER_URL_OF_THE_TEST", "broker-url", several ["nats", "tls"], "Where the broker is");
crate::secret!(Password: "PASSWORD_OF_THE_TEST", "password", [], "The password");

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    ops: OpsArgs<9093>,
    #[command(flatten)]
    http: HttpArgs<8086>,
    #[command(flatten)]
    store: Secret<StoreUrl>,
    #[command(flatten)]
    password: OptionalSecret<Password>,
    #[command(flatten)]
    broker: OptionalSecret<BrokerUrl>,
    /// How long
    #[arg(long, env = "PATIENCE_OF_THE_TEST", default_value = "15s", value_parser = duration)]
    patience: std::time::Duration,
    /// Whether
    #[arg(long, env = "RELAY_OF_THE_TEST", default_value = "on")]
    relay: Switch,
}

const URL: &str = "postgres://role:hunter2@db:5432/listings?sslmode=require";

fn read(flags: &[&str]) -> Result<Settings, clap::Error> {
    Settings::try_parse_from(["program", "--store-url", URL].iter().chain(flags))
}

#[test]
fn defaults_are_those_of_the_contract() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.ops.ops_addr.to_string(), "127.0.0.1:9093");
    assert_eq!(settings.http.http_addr.to_string(), "127.0.0.1:8086");
    assert_eq!((settings.log.rust_log.as_str(), settings.log.log_format), ("info", LogFormat::Json));
    assert!(settings.relay.is_on() && settings.password.0.is_none());
    assert_eq!(settings.store.expose(), URL);
}

#[test]
fn a_secret_is_not_shown_by_anything() {
    let settings = read(&["--password", "hunter2"]).unwrap();
    let help = Settings::command().render_long_help().to_string();
    for shown in [format!("{settings:?}"), help, settings.store.shown(), settings.password.0.unwrap().shown()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(settings.store.shown(), "postgres://db:5432/listings");
    for wrong in ["hunter2", "mysql://role:hunter2@db/listings", "postgres://role:hunter2@db:port/"] {
        let error = Settings::try_parse_from(["program", "--store-url", wrong]).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("STORE_URL_OF_THE_TEST") && !told.contains("hunter2"), "{told}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn a_secret_that_is_needed_is_asked_for_by_name() {
    for flags in [&["program"][..], &["program", "--store-url", ""]] {
        let error = Settings::try_parse_from(flags).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("STORE_URL_OF_THE_TEST (or STORE_URL_OF_THE_TEST_FILE) is not set"), "{error}");
    }
}

#[test]
fn a_secret_may_be_in_a_file() {
    let path = std::env::temp_dir().join(format!("service-secret-{}", uuid::Uuid::now_v7()));
    let shown = path.display().to_string();
    fs::write(&path, "correct horse \n").unwrap();
    let settings = read(&["--password-file", &shown]).unwrap();
    assert_eq!(settings.password.0.unwrap().expose(), "correct horse ");
    let both = read(&["--password-file", &shown, "--password", "x"]).unwrap_err().to_string();
    assert!(both.contains("both PASSWORD_OF_THE_TEST and PASSWORD_OF_THE_TEST_FILE"), "{both}");
    fs::remove_file(&path).unwrap();
    let gone = read(&["--password-file", &shown]).unwrap_err().to_string();
    assert!(gone.contains("PASSWORD_OF_THE_TEST_FILE") && gone.contains(&shown), "{gone}");
}

#[test]
fn a_wrong_value_is_told_with_its_variable() {
    for (flag, value, variable) in [
        ("--ops-addr", "somewhere", "OPS_ADDR"),
        ("--log-format", "xml", "LOG_FORMAT"),
        ("--rust-log", "access=loudly", "RUST_LOG"),
        ("--patience", "15", "PATIENCE_OF_THE_TEST"),
        ("--relay", "maybe", "RELAY_OF_THE_TEST"),
    ] {
        let error = read(&[flag, value]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(variable_behind(&error, Settings::command()).as_deref(), Some(variable));
    }
}

#[test]
fn variables_are_listed_with_their_defaults() {
    let variables = variables::<Settings>();
    let patience = variables.iter().find(|variable| variable.name == "PATIENCE_OF_THE_TEST").unwrap();
    assert_eq!((patience.default.as_str(), patience.help.as_str()), ("15s", "How long"));
    assert!(variables.iter().any(|variable| variable.name == "STORE_URL_OF_THE_TEST_FILE" && variable.default.is_empty()));
    assert!(variables.is_sorted());
}

#[test]
fn every_variable_stands_in_the_help() {
    let help = Settings::command().render_long_help().to_string();
    for variable in [
        "RUST_LOG",
        "LOG_FORMAT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SERVICE_NAME",
        "OPS_ADDR",
        "HTTP_ADDR",
        "STORE_URL_OF_THE_TEST",
        "STORE_URL_OF_THE_TEST_FILE",
        "PASSWORD_OF_THE_TEST",
        "PASSWORD_OF_THE_TEST_FILE",
        "PATIENCE_OF_THE_TEST",
        "RELAY_OF_THE_TEST",
    ] {
        assert!(help.contains(variable), "{variable} in {help}");
    }
}

#[test]
fn a_broker_may_have_several_urls_and_a_password_commas() {
    let settings = read(&["--broker-url", "nats://a:4222, tls://me:hunter2@b"]).unwrap();
    let broker = settings.broker.0.unwrap();
    assert_eq!(
        (broker.urls(), broker.shown()),
        (vec!["nats://a:4222".to_owned(), "tls://me:hunter2@b".to_owned()], "nats://a:4222,tls://b".to_owned())
    );
    let wrong = read(&["--broker-url", "nats://a:4222,http://b"]).unwrap_err().to_string();
    assert!(wrong.contains("nats:// or tls://"), "{wrong}");

    let url = "postgres://role:a,b@db/listings";
    let store = Settings::try_parse_from(["program", "--store-url", url]).unwrap().store;
    assert_eq!((store.expose(), store.shown().as_str()), (url, "postgres://db/listings"));
}
