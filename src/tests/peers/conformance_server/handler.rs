//! The SDK's side of the server: one [`Session`] for every session of the
//! legacy era and for every request of the modern one.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CompletionInfo, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
    GetTaskParams, GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams, PromptMessage,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Reference,
    ResourceContents, Role, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, RoleServer, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use rmcp::{ErrorData, ServerHandler};
use serde_json::json;
use tokio::sync::Mutex;

use crate::catalog::CATALOG;
use crate::changes::{Audience, Watched};
use crate::dialogue::{Asker, Turn};
use crate::tools;

const TTL_MS: u64 = 60_000;

/// What all sessions share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) audience: Audience,
    pub(crate) tasks: TaskManager,
    /// Slow calls that were given up.
    pub(crate) cancelled: AtomicU64,
}

pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) level: Mutex<LoggingLevel>,
    watched: Watched,
}

type Page = Option<PaginatedRequestParams>;
type Context = RequestContext<RoleServer>;

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, level: Mutex::new(LoggingLevel::Debug), watched: Watched::default() }
    }
}

impl ServerHandler for Session {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_completions()
            .enable_logging()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("conformance-server", "1.0.0"))
            .with_instructions("Everything that the conformance suite asks for.")
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        CATALOG.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn list_tools(&self, _: Page, _: Context) -> Result<ListToolsResult, ErrorData> {
        let result = ListToolsResult::with_all_items(CATALOG.tools.clone());
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, &cx).await
    }

    async fn list_resources(&self, _: Page, _: Context) -> Result<ListResourcesResult, ErrorData> {
        let result = ListResourcesResult::with_all_items(CATALOG.resources.clone());
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _: Page,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let result = ListResourceTemplatesResult::with_all_items(CATALOG.templates.clone());
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        cx: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let ReadResourceRequestParams { uri, input_responses, request_state, .. } = request;
        let id = uri.strip_prefix("test://template/").and_then(|it| it.strip_suffix("/data"));
        let contents = if let Some(dialogue) = CATALOG.dialogues.get(&uri) {
            let asker = Asker {
                arguments: Default::default(),
                responses: input_responses,
                state: request_state,
            };
            match dialogue.hold(asker, &cx).await? {
                Turn::Ask(questions) => return Ok(questions.into()),
                Turn::Answered(text) => ResourceContents::text(text, uri),
                Turn::Failed(reason) => return Err(ErrorData::internal_error(reason, None)),
            }
        } else if let Some(id) = id {
            let data = format!("Data for ID: {id}");
            let text = json!({ "id": id, "templateTest": true, "data": data }).to_string();
            ResourceContents::text(text, uri).with_mime_type("application/json")
        } else {
            CATALOG.contents.get(&uri).cloned().ok_or_else(|| {
                ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": uri })))
            })?
        };
        let result = ReadResourceResult::new(vec![contents]);
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public).into())
    }

    async fn list_prompts(&self, _: Page, _: Context) -> Result<ListPromptsResult, ErrorData> {
        let result = ListPromptsResult::with_all_items(CATALOG.prompts.clone());
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        cx: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        if let Some(content) = CATALOG.messages(&request.name, &arguments) {
            let messages = content?.into_iter().map(|it| PromptMessage::new(Role::User, it));
            return Ok(GetPromptResult::new(messages.collect()).into());
        }
        let is_prompt = CATALOG.prompts.iter().any(|prompt| prompt.name == request.name);
        let dialogue = CATALOG.dialogues.get(&request.name).filter(|_| is_prompt);
        let Some(dialogue) = dialogue else {
            return Err(ErrorData::invalid_params("Unknown prompt", None));
        };
        let (responses, state) = (request.input_responses, request.request_state);
        match dialogue.hold(Asker { arguments, responses, state }, &cx).await? {
            Turn::Ask(questions) => Ok(questions.into()),
            Turn::Answered(text) => {
                Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into())
            }
            Turn::Failed(reason) => Err(ErrorData::internal_error(reason, None)),
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: Context,
    ) -> Result<CompleteResult, ErrorData> {
        let all: &[&str] = match (&request.r#ref, request.argument.name.as_str()) {
            (Reference::Resource(_), "id") => &["1", "12", "123"],
            (Reference::Prompt(_), "arg1" | "arg2") => &["paris", "park", "party"],
            _ => &[],
        };
        let fitting = all.iter().filter(|it| it.starts_with(&request.argument.value));
        let values = fitting.map(|it| (*it).to_owned()).collect();
        let info = CompletionInfo::new(values);
        info.map(CompleteResult::new).map_err(|e| ErrorData::internal_error(e, None))
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        *self.level.lock().await = request.level;
        Ok(())
    }

    async fn on_initialized(&self, cx: NotificationContext<RoleServer>) {
        self.shared.audience.join(cx.peer, Arc::clone(&self.watched)).await;
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _: Context,
    ) -> Result<(), ErrorData> {
        self.watched.lock().await.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: Context,
    ) -> Result<(), ErrorData> {
        self.watched.lock().await.remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        self.shared.audience.grant();
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, cx: SubscriptionContext) -> Result<(), ErrorData> {
        self.shared.audience.listen(cx).await;
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: Context,
    ) -> Result<GetTaskResult, ErrorData> {
        self.shared.tasks.get_task(&request.task_id).map(GetTaskResult::new)
    }

    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Result<(), ErrorData> {
        self.shared.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Result<(), ErrorData> {
        self.shared.tasks.cancel_task(&request.task_id)
    }
}
