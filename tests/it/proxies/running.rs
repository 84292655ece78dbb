//! haproxy, nginx and stunnel in front of chatd, each as contrib/behind-a-proxy.md has it.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Authority, Client, Daemon, Socket, wait_until};

/// The page that shows how to run behind proxies.
const PAGE: &str = include_str!("../../../contrib/behind-a-proxy.md");
/// The proxies' port and chatd's, on the page.
const PORTS: [&str; 2] = ["24286", "24285"];

/// A block of the page, in the language of this name.
fn sample(language: &str) -> &'static str {
    let (_, rest) = PAGE
        .split_once(&format!("```{language}\n"))
        .expect(language);
    rest.split_once("```").expect("the end of the block").0
}

/// A running proxy in front of a daemon of its own.
struct Proxy {
    child: Child,
    port: u16,
    daemon: Daemon,
    log: std::path::PathBuf,
    /// What its clients speak to it, if not plain TCP.
    tls: Option<Arc<ClientConfig>>,
    _folder: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- the proxy ---\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

/// A port that is free now. The proxies take no port 0.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

impl Proxy {
    /// Runs a proxy with its sample; none, and a word on standard output, where it is not installed.
    fn start(
        language: &str,
        programs: &[&str],
        arguments: impl Fn(&Path) -> Vec<String>,
        adapt: impl Fn(String) -> String,
    ) -> Option<Self> {
        let runs = |program: &&&str| Command::new(program).arg("-v").output().is_ok();
        let Some(program) = programs.iter().find(runs) else {
            println!("skipped: {language} is not installed");
            return None;
        };
        let listen = sample("toml").replace(PORTS[1], "0");
        let trusted = "[[listen]]\naddress = \"127.0.0.1:0\"\naccess = \"trusted\"\n";
        let security = "[security]\nbcrypt_cost = 4\nfailed_logins_per_minute = 1\n";
        let daemon = Daemon::with(&format!("{trusted}{listen}{security}"));
        let (_, behind) = daemon.address_of("login").rsplit_once(':').expect("a port");
        let folder = TempDir::new().expect("a temporary directory");
        let (file, log) = (folder.path().join("proxy.conf"), folder.path().join("log"));
        let port = free_port();
        let adapted = sample(language)
            .replace(PORTS[0], &port.to_string())
            .replace(PORTS[1], behind);
        fs::write(&file, adapt(adapted)).expect("write the configuration");
        let output = fs::File::create(&log).expect("create the log");
        let child = Command::new(program)
            .args(arguments(&file))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .spawn()
            .expect("run the proxy");
        let mut proxy = Self {
            child,
            port,
            daemon,
            log,
            tls: None,
            _folder: folder,
        };
        wait_until("the proxy to listen", || {
            let status = proxy.child.try_wait().expect("look after the proxy");
            assert!(status.is_none(), "the proxy ended: {status:?}");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(proxy)
    }

    fn socket(&self, source: &str) -> Socket {
        let source: IpAddr = source.parse().expect("an address");
        let address = SocketAddr::from(([127, 0, 0, 1], self.port)).to_string();
        let socket = Socket::connect_from(source, &address).expect("connect to the proxy");
        match &self.tls {
            None => socket,
            Some(config) => socket.tls(config).expect("a handshake with the proxy"),
        }
    }

    fn client(&self, source: &str) -> Client {
        Client::over(self.socket(source))
    }

    /// Whatever goes over one connection goes through the proxy, and comes from where it comes from.
    fn carries_everything(&self) {
        let mut root = self.daemon.client();
        let ann = root.create_user("ann@example.org");
        let conversation = root.create_conversation("lunch", &[&ann]);
        let mut subscriber = self.client("127.0.3.7");
        subscriber.login("ann@example.org", "s3cret");
        let session = subscriber.ok("session", "get", json!({}));
        let remote = session["remote"].as_str().expect("a remote");
        assert!(remote.starts_with("127.0.3.7:"), "{remote}");
        assert!(
            self.daemon.log().contains(remote),
            "the audit log: {}",
            self.daemon.log()
        );
        subscriber.subscribe(json!({}));
        root.send_message(&conversation, &ann, "hello");
        assert_eq!(subscriber.next_event()["body"]["message"], "hello");
        self.passes_a_half_close_on();
        self.keeps_strangers_apart();
        // A quiet subscriber is still there.
        root.send_message(&conversation, &ann, "bye");
        assert_eq!(subscriber.next_event()["body"]["message"], "bye");
    }

    /// A client that closes its sending side gets every answer.
    fn passes_a_half_close_on(&self) {
        const PINGS: usize = 500;
        let ping = "{\"class\":\"chat\",\"subclass\":\"session\",\"cmd\":\"ping\",\"tid\":1}\n";
        let mut client = self.client("127.0.3.8");
        client.send_bytes(ping.repeat(PINGS).as_bytes());
        client.shutdown_write();
        for _ in 0..PINGS {
            let answer = client.next_value();
            assert_eq!(answer["result"], "ok", "{answer}");
        }
        client.expect_end();
    }

    /// One who guesses passwords locks out nobody else.
    fn keeps_strangers_apart(&self) {
        let mut stranger = self.client("127.0.3.66");
        let limited = (0..100).any(|number| {
            let guess = json!({"login": format!("nobody{number}@example.org"), "password": "no"});
            stranger.code("session", "login", guess) == "rate_limited"
        });
        assert!(limited, "nobody was told to wait");
        self.client("127.0.3.67").login("ann@example.org", "s3cret");
    }

    fn counters(&self) -> Value {
        self.daemon.client().ok("server", "info", json!({}))["counters"].take()
    }
}

#[test]
fn haproxy_runs_in_front_and_its_checks_leave_no_line() {
    let arguments = |file: &Path| {
        vec![
            "-db".to_owned(),
            "-f".to_owned(),
            file.display().to_string(),
        ]
    };
    for header in ["send-proxy-v2", "send-proxy"] {
        let adapt = |sample: String| {
            let often = sample.replace("check inter 2s", "check inter 20ms");
            assert_ne!(often, sample);
            // Fewer connections, for machines that allow few descriptors.
            let few = often.replace("maxconn 8000", "maxconn 200");
            few.replace("send-proxy-v2", header)
        };
        let Some(proxy) = Proxy::start(
            "haproxy",
            &["/usr/sbin/haproxy", "haproxy"],
            arguments,
            adapt,
        ) else {
            return;
        };
        proxy.carries_everything();
        // Many checks were made meanwhile.
        let log = proxy.daemon.log();
        let expected = ["audit", "started", "the data directory is new"];
        let other = log
            .lines()
            .find(|line| !expected.iter().any(|text| line.contains(text)));
        assert_eq!(other, None, "{header}");
        assert_eq!(proxy.counters()["bad_proxy_headers"], 0, "{header}");
    }
}

#[test]
fn nginx_runs_in_front() {
    let arguments = |file: &Path| {
        let folder = file.parent().expect("a folder").display();
        let global =
            format!("daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;");
        let prefix = format!("{folder}/");
        let errors = format!("{folder}/errors");
        let words = ["-p", &prefix, "-e", &errors, "-g", &global, "-c"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        words.push(file.display().to_string());
        words
    };
    // Fewer connections, for machines that allow few descriptors.
    let adapt =
        |sample: String| sample.replace("worker_connections 16000", "worker_connections 256");
    if let Some(proxy) = Proxy::start("nginx", &["/usr/sbin/nginx", "nginx"], arguments, adapt) {
        proxy.carries_everything();
    }
}

#[test]
fn stunnel_runs_in_front() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let identity = authority.issue("stunnel");
    let both = identity.cert.with_extension("both");
    let mut file = fs::File::create(&both).expect("create a file");
    for part in [&identity.cert, &identity.key] {
        let part = fs::read(part).expect("a certificate and its key");
        file.write_all(&part).expect("write them to one file");
    }
    let arguments = |file: &Path| vec![file.display().to_string()];
    let adapt = |sample: String| {
        let own = both.display().to_string();
        let adapted = sample.replace("/etc/stunnel/chat.pem", &own);
        assert_ne!(adapted, sample);
        format!("foreground = yes\npid =\n{adapted}")
    };
    let programs = ["/usr/bin/stunnel4", "stunnel"];
    let Some(mut proxy) = Proxy::start("stunnel", &programs, arguments, adapt) else {
        return;
    };
    proxy.tls = Some(authority.client(None));
    proxy.carries_everything();
}
