//! Writes the traits of `src/proto.rs` for mutations and their responses, and what keeps secret
//! fields out of logs and stored answers. A field is secret by the standard option `debug_redact`.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

use crate::rules::Method;

/// Set on a redacted response, so that a repeated call says where the secret went.
const SECRET_REASON: &str = "secret_reason";

/// The source of `impls.rs`.
pub fn generate(pool: &DescriptorPool, methods: &[Method]) -> String {
    let mut source = String::new();
    let mut redacted = BTreeMap::new();
    for method in methods {
        if method.mutation {
            mutation(&mut source, method.request.name());
        }
        let has_revision = method.response.get_field_by_name("revision").is_some();
        if has_revision {
            revised(&mut source, method.response.name());
        }
        if has_revision || method.response.fields().any(|field| is_secret(&field)) {
            redacted.insert(method.response.name().to_owned(), method.response.clone());
        }
    }
    for response in redacted.values() {
        redact(&mut source, response);
    }
    for message in secret_messages(pool) {
        debug(&mut source, &message);
    }
    source
}

/// Messages that directly hold a secret field.
pub fn secret_messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|message| message.fields().any(|field| is_secret(&field)))
}

pub fn is_secret(field: &FieldDescriptor) -> bool {
    let options = field.options();
    options.get_field_by_name("debug_redact").and_then(|value| value.as_bool()).unwrap_or_default()
}

fn mutation(source: &mut String, name: &str) {
    let _ = write!(
        source,
        "impl Mutation for {name} {{
    fn request_id(&self) -> &str {{
        &self.request_id
    }}
    fn validate_only(&self) -> bool {{
        self.validate_only
    }}
    fn reason(&self) -> &str {{
        &self.reason
    }}
}}
"
    );
}

fn revised(source: &mut String, name: &str) {
    let _ = write!(
        source,
        "impl Revised for {name} {{
    fn set_revision(&mut self, revision: ::std::string::String) {{
        self.revision = revision;
    }}
}}
"
    );
}

fn redact(source: &mut String, message: &MessageDescriptor) {
    let _ = writeln!(source, "impl Redact for {} {{", message.name());
    let secrets: Vec<_> = message.fields().filter(is_secret).collect();
    let explained = !secrets.is_empty() && message.get_field_by_name(SECRET_REASON).is_some();
    let why = if explained { "why" } else { "_" };
    let _ = writeln!(source, "    fn redact(&mut self, {why}: Withheld) {{");
    for field in &secrets {
        let _ = writeln!(source, "        self.{} = Default::default();", field.name());
    }
    if explained {
        let _ = writeln!(source, "        self.{SECRET_REASON} = why.reason();");
    }
    source.push_str("    }\n}\n");
}

fn debug(source: &mut String, message: &MessageDescriptor) {
    let name = message.name();
    let _ = write!(
        source,
        "impl ::std::fmt::Debug for {name} {{
    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {{
        f.debug_struct({name:?})
"
    );
    let mut oneofs = Vec::new();
    for field in message.fields() {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let name = oneof.map_or_else(|| field.name().to_owned(), |oneof| oneof.name().to_owned());
        if is_secret(&field) {
            let _ = writeln!(source, "            .field({name:?}, &format_args!(\"[redacted]\"))");
        } else if !oneofs.contains(&name) {
            let _ = writeln!(source, "            .field({name:?}, &self.{name})");
            oneofs.push(name);
        }
    }
    source.push_str("            .finish()\n    }\n}\n");
}
