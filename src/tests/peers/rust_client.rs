//! The Rust SDK, which speaks both eras over Streamable HTTP. It proves that its
//! handshake (legacy), its probe (auto) and the modern era alone work. What a
//! server is expected to answer is `servers.json`.
//!
//! ```text
//! rust_client URL [--server fixture|everything] [--mode legacy|auto|modern]
//! ```
#![expect(deprecated, reason = "what 2026-07-28 deprecates is tested nevertheless")]

use std::env::args;
use std::error::Error;
use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    ContentBlock, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
    ElicitResult, ElicitationAction, GetPromptRequestParams, Implementation, JsonObject,
    ListRootsResult, LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam,
    ProtocolVersion, ReadResourceRequestParams, RequestMetaObject,
    ResourceUpdatedNotificationParam, Root, SamplingMessage, ServerNotification,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, ErrorData, RoleClient};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

const TIME: Duration = Duration::from_secs(15);

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Client = RunningService<RoleClient, Answers>;

/// What the server sent on its own.
#[derive(Default)]
struct Heard {
    logs: AtomicUsize,
    progress: Mutex<Vec<f64>>,
    updates: Mutex<Vec<String>>,
}

/// The client's side: answers what the server asks.
struct Answers {
    is_full: bool,
    heard: Arc<Heard>,
}

impl ClientHandler for Answers {
    fn get_info(&self) -> ClientConfig {
        let builder = ClientCapabilities::builder();
        let capabilities = if self.is_full {
            builder.enable_sampling().enable_elicitation().enable_roots().build()
        } else {
            builder.build()
        };
        ClientConfig::new(capabilities, Implementation::new("rust-client", "1.0.0"))
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let message = SamplingMessage::assistant_text("The client's model");
        Ok(CreateMessageResult::new(message, "test".to_owned()))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let request = json(&request);
        let mut content = Map::new();
        for name in request.pointer("/requestedSchema/required").into_iter().flat_map(items) {
            let name = name.as_str().unwrap_or_default();
            let kind = request.pointer(&format!("/requestedSchema/properties/{name}/type"));
            let value = match kind.and_then(Value::as_str) {
                Some("boolean") => Value::from(true),
                Some("integer" | "number") => Value::from(1),
                _ => Value::from("Ada"),
            };
            content.insert(name.to_owned(), value);
        }
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(Value::from(content)))
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new("file:///client/root")]))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.heard.progress.lock().await.push(params.progress);
    }

    async fn on_logging_message(
        &self,
        _: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.heard.logs.fetch_add(1, Ordering::Relaxed);
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.heard.updates.lock().await.push(params.uri);
    }
}

/// The test: where, how and what to expect.
struct Test {
    url: String,
    mode: ClientLifecycleMode,
    expected: Value,
}

impl Test {
    fn from_args() -> Outcome<Self> {
        let (mut url, mut server, mut mode) = (None, "fixture".to_owned(), "legacy".to_owned());
        let mut words = args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--server" => server = words.next().ok_or("--server needs a name")?,
                "--mode" => mode = words.next().ok_or("--mode needs a name")?,
                _ => url = Some(word),
            }
        }
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let mode = match mode.as_str() {
            "legacy" => ClientLifecycleMode::Initialize,
            "auto" => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
            "modern" => ClientLifecycleMode::Discover { preferred_versions },
            _ => return Err("--mode is legacy, auto or modern".into()),
        };
        let mut servers: Map<String, Value> = serde_json::from_str(include_str!("servers.json"))?;
        let mut expected = servers.remove(&server).ok_or("servers.json has no such server")?;
        if let Some(like) = expected.get("like").and_then(Value::as_str) {
            let mut whole = servers.remove(like).ok_or("servers.json has no such server")?;
            if let (Some(whole), Some(own)) = (whole.as_object_mut(), expected.as_object()) {
                whole.extend(own.clone());
            }
            expected = whole;
        }
        Ok(Self { url: url.ok_or("which URL?")?, mode, expected })
    }

    async fn connect(&self, is_full: bool) -> Outcome<Client> {
        let transport = StreamableHttpClientTransport::from_uri(self.url.as_str());
        let answers = Answers { is_full, heard: Arc::default() };
        Ok(answers.serve_with_lifecycle(transport, self.mode.clone()).await?)
    }

    /// What `servers.json` says at `path`.
    fn get(&self, path: &str) -> &Value {
        self.expected.pointer(path).unwrap_or(&Value::Null)
    }

    fn text(&self, path: &str) -> &str {
        self.get(path).as_str().unwrap_or_default()
    }

    fn object(&self, path: &str) -> JsonObject {
        self.get(path).as_object().cloned().unwrap_or_default()
    }

    fn number(&self, path: &str) -> usize {
        self.get(path).as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or_default()
    }

    /// Calls the tool of the step at `path`; what it said.
    async fn call(
        &self,
        client: &Client,
        path: &str,
        level: Option<LoggingLevel>,
    ) -> Outcome<String> {
        let tool = self.text(&format!("{path}/tool")).to_owned();
        let arguments = self.object(&format!("{path}/arguments"));
        let mut params = CallToolRequestParams::new(tool).with_arguments(arguments);
        if let Some(level) = level.filter(|_| is_modern(client)) {
            let mut meta = RequestMetaObject::new();
            meta.set_log_level(level);
            params.meta = Some(meta);
        }
        let result = client.call_tool(params).await?;
        let said = text_of(&result.content);
        ensure(result.is_error != Some(true), || format!("{path} failed: {said}"))?;
        Ok(said)
    }

    /// Calls the tool of the step at `path` and looks for its text in what it said.
    async fn call_and_look(&self, client: &Client, path: &str) -> Outcome {
        let said = self.call(client, path, None).await?;
        let text = self.text(&format!("{path}/text"));
        ensure(said.contains(text), || format!("{path} said: {said}"))
    }

    async fn echo(&self, client: &Client, text: &str) -> Outcome {
        let mut arguments = JsonObject::new();
        arguments.insert(self.text("/echo/argument").to_owned(), Value::from(text));
        let tool = self.text("/echo/tool").to_owned();
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        let said = text_of(&client.call_tool(params).await?.content);
        ensure(said.contains(text), || format!("echo said: {said}"))
    }

    async fn check_server(&self, client: &Client) -> Outcome {
        let info = json(&*client.peer_info().ok_or("the server did not introduce itself")?);
        let name = info.pointer("/serverInfo/name").and_then(Value::as_str).unwrap_or_default();
        ensure(name == self.text("/name"), || format!("server is called {name}: {info}"))?;
        let bare = self.connect(false).await?;
        let count = bare.list_all_tools().await?.len();
        bare.cancel().await?;
        ensure(count == self.number("/tools/bare"), || format!("{count} tools for a bare client"))?;
        let count = client.list_all_tools().await?.len();
        ensure(count == self.number("/tools/full"), || format!("{count} tools for a full client"))
    }

    async fn check_calls(&self, client: &Client) -> Outcome {
        self.echo(client, "quotes \" \\ \u{2028} \u{1f980} and \n lines").await?;
        self.echo(client, &"0123456789abcdef".repeat(16_384)).await?;
        for index in 0..items(self.get("/calls")).len() {
            self.call_and_look(client, &format!("/calls/{index}")).await?;
        }
        let unknown = client.call_tool(CallToolRequestParams::new("no_such_tool")).await;
        let failed = unknown.map_or(true, |result| result.is_error == Some(true));
        ensure(failed, || "an unknown tool succeeded".to_owned())
    }

    async fn check_progress(&self, client: &Client) -> Outcome {
        let heard = &client.service().heard;
        heard.progress.lock().await.clear();
        self.call(client, "/progress", None).await?;
        let wanted = self.number("/progress/reports");
        until("progress", async || heard.progress.lock().await.len() >= wanted).await?;
        let seen = heard.progress.lock().await.clone();
        ensure(seen.len() == wanted && seen.is_sorted_by(|a, b| a < b), || {
            format!("progress was {seen:?}")
        })
    }

    async fn check_questions(&self, client: &Client) -> Outcome {
        for path in ["/sampling", "/elicitation", "/roots"] {
            self.call_and_look(client, path).await?;
        }
        Ok(())
    }

    async fn check_logging(&self, client: &Client) -> Outcome {
        let heard = &client.service().heard;
        heard.logs.store(0, Ordering::Relaxed);
        let is_quiet = self.get("/logging/quiet") == &Value::from(true);
        if !is_quiet && is_modern(client) {
            // The modern era carries no log that belongs to no request.
            return Ok(());
        }
        if is_quiet {
            self.log_at(client, LoggingLevel::Error).await?;
            let count = heard.logs.load(Ordering::Relaxed);
            ensure(count == 0, || "logged below the level that was set".to_owned())?;
        }
        self.log_at(client, LoggingLevel::Debug).await?;
        let wanted = self.number("/logging/lines");
        until("the log", async || heard.logs.load(Ordering::Relaxed) >= wanted).await
    }

    async fn log_at(&self, client: &Client, level: LoggingLevel) -> Outcome {
        if !is_modern(client) {
            client.set_level(SetLevelRequestParams::new(level)).await?;
        }
        self.call(client, "/logging", Some(level)).await.map(drop)
    }

    async fn check_resources(&self, client: &Client) -> Outcome {
        let count = client.list_all_resources().await?.len();
        ensure(count >= self.number("/resources/least"), || format!("{count} resources"))?;
        let params = ReadResourceRequestParams::new(self.text("/resources/uri"));
        let read = json(&client.read_resource(params).await?.contents);
        let text = read.pointer("/0/text").and_then(Value::as_str).unwrap_or_default();
        ensure(text.contains(self.text("/resources/text")), || format!("read {read}"))?;
        let unknown = client.read_resource(ReadResourceRequestParams::new("test://no/such")).await;
        ensure(unknown.is_err(), || "an unknown resource was read".to_owned())
    }

    async fn check_updates(&self, client: &Client) -> Outcome {
        let uri = self.text("/watch/uri");
        if is_modern(client) {
            let filter = SubscriptionFilter::builder().resource_subscriptions([uri]).build();
            let mut subscription = client.listen(filter).await?;
            self.call(client, "/watch", None).await?;
            let notice = timeout(TIME, subscription.next()).await??;
            let is_update = match &notice {
                Some(ServerNotification::ResourceUpdatedNotification(it)) => it.params.uri == uri,
                _ => false,
            };
            subscription.cancel().await?;
            return ensure(is_update, || format!("heard {notice:?}"));
        }
        let heard = &client.service().heard;
        client.subscribe(SubscribeRequestParams::new(uri)).await?;
        self.call(client, "/watch", None).await?;
        let is_updated = async || heard.updates.lock().await.iter().any(|it| it == uri);
        until("the update", is_updated).await?;
        Ok(client.unsubscribe(UnsubscribeRequestParams::new(uri)).await?)
    }

    async fn check_prompts(&self, client: &Client) -> Outcome {
        let count = client.list_all_prompts().await?.len();
        ensure(count >= self.number("/prompts/least"), || format!("{count} prompts"))?;
        let params = GetPromptRequestParams::new(self.text("/prompts/name"))
            .with_arguments(self.object("/prompts/arguments"));
        let got = json(&client.get_prompt(params).await?.messages).to_string();
        ensure(got.contains(self.text("/prompts/text")), || format!("got {got}"))?;
        let [prompt, argument, value] = ["prompt", "argument", "value"]
            .map(|key| self.text(&format!("/completion/{key}")).to_owned());
        let info = client.complete_prompt_argument(prompt, argument, value, None).await?;
        let first = info.values.first().map_or("", String::as_str);
        ensure(first == self.text("/completion/first"), || format!("completed to {first}"))
    }

    async fn check_cancellation(&self, client: &Client) -> Outcome {
        let before = self.cancelled(client).await?;
        let params = CallToolRequestParams::new(self.text("/cancel/tool").to_owned())
            .with_arguments(self.object("/cancel/arguments"));
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::no_options();
        let call = client.send_cancellable_request(request, options).await?;
        sleep(Duration::from_millis(300)).await;
        call.cancel(Some("enough".to_owned())).await?;
        if !before.is_empty() {
            let is_counted =
                async || self.cancelled(client).await.is_ok_and(|count| count != before);
            until("cancellation at the server", is_counted).await?;
        }
        self.echo(client, "after a cancellation").await
    }

    /// How many calls the server knows as cancelled, if it counts them.
    async fn cancelled(&self, client: &Client) -> Outcome<String> {
        let Some(tool) = self.get("/cancel/counter").as_str() else { return Ok(String::new()) };
        let result = client.call_tool(CallToolRequestParams::new(tool.to_owned())).await?;
        Ok(text_of(&result.content))
    }

    async fn check_two_clients(&self, client: &Client) -> Outcome {
        let other = self.connect(true).await?;
        for round in 0..10 {
            let texts = [0, 1, 2, 3].map(|call| format!("round {round} call {call}"));
            let [a, b, c, d] = &texts;
            tokio::try_join!(
                self.echo(client, a),
                self.echo(&other, b),
                self.echo(client, c),
                self.echo(&other, d),
            )?;
        }
        other.cancel().await?;
        Ok(())
    }
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(message().into()) }
}

/// Waits for `condition`, which becomes true in the background.
async fn until(what: &str, condition: impl AsyncFn() -> bool) -> Outcome {
    let wait = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIME, wait).await.map_err(|_elapsed| format!("{what} did not happen").into())
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of(content: &[ContentBlock]) -> String {
    content.iter().filter_map(|part| part.as_text()).map(|it| it.text.as_str()).collect()
}

fn version(client: &Client) -> String {
    client.peer_info().map(|info| info.protocol_version.to_string()).unwrap_or_default()
}

fn is_modern(client: &Client) -> bool {
    client.peer_info().is_some_and(|info| !info.protocol_version.has_initialize())
}

/// The checks in turn, by name.
macro_rules! run {
    ($test:ident, $client:ident: $($name:literal => $check:ident),+ $(,)?) => {
        $(
            $test.$check(&$client).await.map_err(|e| format!("{}: {e}", $name))?;
            writeln!(stdout(), "ok {}", $name)?;
        )+
    };
}

async fn run() -> Outcome {
    let test = Test::from_args()?;
    let client = test.connect(true).await.map_err(|e| format!("connection: {e}"))?;
    writeln!(stdout(), "ok connection, {}", version(&client))?;
    run!(test, client:
        "server info and tools" => check_server,
        "calls" => check_calls,
        "progress" => check_progress,
        "sampling, elicitation and roots" => check_questions,
        "logging" => check_logging,
        "resources" => check_resources,
        "resource updates" => check_updates,
        "prompts and completion" => check_prompts,
        "cancellation" => check_cancellation,
        "two clients at once" => check_two_clients,
    );
    client.cancel().await?;
    writeln!(stdout(), "ok end of session")?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    // A reader that went away learns it from the exit code.
    drop(writeln!(stdout(), "FAILED {error}"));
    ExitCode::FAILURE
}
