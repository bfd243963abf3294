// The order of an environment's end: its cleanup hook closes the mailbox and stops all native work (waiting for the running op), after that
// Node frees the thread-safe function, references and buffers, and last the instance data with it.
#include "bridge/environment.h"

#include <utility>

#include "bridge/errors.h"

namespace chiasma::bridge {

Mailbox::Mailbox(Napi::Env env) : env_(env), state_(std::make_shared<State>()) {
  auto* held = new std::shared_ptr<State>(state_);
  const napi_finalize finalize = [](napi_env, void*, void* context) { delete static_cast<std::shared_ptr<State>*>(context); };
  const napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "chiasma"), 0, 1, nullptr, finalize, held,
                                                             &Mailbox::drain, &state_->function);
  if (status != napi_ok) {
    delete held;
    throw Napi::Error::New(env);
  }
  napi_unref_threadsafe_function(env, state_->function);
}

void Mailbox::post(Delivery delivery) {
  std::lock_guard lock(state_->mutex);
  if (!state_->open) return;
  state_->deliveries.push_back(std::move(delivery));
  // One call for the first delivery: drain takes all there are.
  if (state_->deliveries.size() == 1) napi_call_threadsafe_function(state_->function, nullptr, napi_tsfn_nonblocking);
}

void Mailbox::close() {
  std::vector<Delivery> dropped;
  std::lock_guard lock(state_->mutex);
  state_->open = false;
  dropped.swap(state_->deliveries);
}

void Mailbox::keep_alive(bool wanted) {
  std::lock_guard lock(state_->mutex);
  if (!state_->open) return;
  if (wanted) {
    napi_ref_threadsafe_function(env_, state_->function);
  } else {
    napi_unref_threadsafe_function(env_, state_->function);
  }
}

void Mailbox::drain(napi_env env, napi_value, void* context, void*) {
  if (!env) return;
  State& state = **static_cast<std::shared_ptr<State>*>(context);
  std::vector<Delivery> deliveries;
  {
    std::lock_guard lock(state.mutex);
    deliveries.swap(state.deliveries);
  }
  for (const Delivery& delivery : deliveries) {
    napi_handle_scope scope = nullptr;
    if (napi_open_handle_scope(env, &scope) != napi_ok) return;
    delivery(env);
    napi_close_handle_scope(env, scope);
  }
}

Environment::Environment(Napi::Env env) : mailbox_(std::make_shared<Mailbox>(env)) {
  // After the mailbox's thread-safe function, so that it runs before that is freed.
  napi_add_env_cleanup_hook(env, &Environment::end, this);
}

Environment::~Environment() {
  // References die with the environment; letting Napi delete them now would be too late for some.
  for (auto* constructor : {&device_class, &weights_class, &program_class, &task_class}) constructor->SuppressDestruct();
}

Environment& Environment::of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

void Environment::end(void* self) {
  auto& environment = *static_cast<Environment*>(self);
  environment.mailbox_->close();
  for (const auto& weak : environment.executors_) {
    if (const auto executor = weak.lock()) executor->stop();
  }
  for (const auto& weak : environment.executors_) {
    if (const auto executor = weak.lock()) executor->abandon();
  }
}

void Environment::watch(const std::shared_ptr<core::Executor>& executor) {
  std::erase_if(executors_, [](const auto& known) { return known.expired(); });
  executors_.push_back(executor);
}

uint64_t Environment::begin(Napi::Env env, Napi::Promise* promise, std::shared_ptr<OpenDevice> device, napi_value kept) {
  Pending pending;
  pending.device = std::move(device);
  napi_value value = nullptr;
  if (napi_create_promise(env, &pending.deferred, &value) != napi_ok) throw Napi::Error::New(env);
  *promise = Napi::Promise(env, value);
  if (kept && napi_create_reference(env, kept, 1, &pending.kept) != napi_ok) throw Napi::Error::New(env);
  if (pending_.empty()) mailbox_->keep_alive(true);
  const uint64_t id = next_id_++;
  pending_.emplace(id, std::move(pending));
  return id;
}

char* Environment::stage(uint64_t id, size_t bytes) {
  Pending& pending = pending_.at(id);
  pending.device_staging = pending.device->executor->device().take_host(bytes);
  if (pending.device_staging) return static_cast<char*>(pending.device_staging);
  pending.staging = pending.device->staging.take(bytes);
  return pending.staging.memory.get();
}

napi_value Environment::kept(napi_env env, uint64_t id) const {
  const auto found = pending_.find(id);
  napi_value value = nullptr;
  if (found == pending_.end() || !found->second.kept || napi_get_reference_value(env, found->second.kept, &value) != napi_ok) return nullptr;
  return value;
}

Pending Environment::take(napi_env env, uint64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return {};
  Pending pending = std::move(found->second);
  pending_.erase(found);
  if (pending_.empty()) mailbox_->keep_alive(false);
  if (pending.kept) napi_delete_reference(env, pending.kept);
  if (pending.device) {
    if (pending.device_staging) pending.device->executor->device().give_host(pending.device_staging);
    pending.device->staging.give_back(std::move(pending.staging));
    pending.device->memory_changed();
  }
  return pending;
}

void Environment::resolve(napi_env env, uint64_t id, napi_value value) {
  const Pending pending = take(env, id);
  if (!pending.deferred) return;
  if (!value) napi_get_undefined(env, &value);
  napi_resolve_deferred(env, pending.deferred, value);
}

void Environment::reject(napi_env env, uint64_t id, const core::Error& error) {
  const Pending pending = take(env, id);
  if (!pending.deferred) return;
  napi_value value = make_error(env, error);
  if (!value) napi_get_undefined(env, &value);
  napi_reject_deferred(env, pending.deferred, value);
}

void Environment::drop(napi_env env, uint64_t id) {
  const Pending pending = take(env, id);
  napi_value undefined = nullptr;
  if (pending.deferred && napi_get_undefined(env, &undefined) == napi_ok) napi_resolve_deferred(env, pending.deferred, undefined);
}

Napi::Object construct(Napi::Env env, Napi::FunctionReference& constructor, std::shared_ptr<void> state) {
  Environment::of(env).construction = std::move(state);
  return constructor.New({});
}

}  // namespace chiasma::bridge
