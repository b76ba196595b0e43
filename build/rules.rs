//! Reads who may call each method from its `access` option, checks what every method owes, and
//! writes the table `RULES`. Reports every problem at once.

use std::fmt::Write;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    Value,
};

use crate::impls;

const OPTION: &str = "rolecall.v1.access";
/// The fields that make a request a mutation.
const MUTATION: [(&str, u32, Kind); 3] = [
    ("request_id", 101, Kind::String),
    ("validate_only", 102, Kind::Bool),
    ("reason", 103, Kind::String),
];

/// One method and its rule, as Rust source.
pub struct Method {
    pub path: String,
    pub rule: String,
    pub request: MessageDescriptor,
    pub response: MessageDescriptor,
    pub mutation: bool,
}

/// All methods by path, or all problems.
pub fn read(pool: &DescriptorPool) -> Result<Vec<Method>, Vec<String>> {
    let mut methods = Vec::new();
    let mut problems = secret_problems(pool);
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        match read_method(pool, &method) {
            Ok(method) => methods.push(method),
            Err(problem) => problems.push(format!("{}: {problem}", method.full_name())),
        }
    }
    methods.sort_by(|a, b| a.path.cmp(&b.path));
    if problems.is_empty() { Ok(methods) } else { Err(problems) }
}

/// The source of `rules.rs`.
pub fn generate(methods: &[Method]) -> String {
    let mut source = String::from(
        "/// Who may call each method, by path.\npub static RULES: &[(&str, Rule)] = &[\n",
    );
    for method in methods {
        let _ = writeln!(source, "    ({:?}, {}),", method.path, method.rule);
    }
    source.push_str("];\n");
    source
}

fn read_method(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<Method, String> {
    let (request, response) = (method.input(), method.output());
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let access = access(pool, method)?;
    let rule = rule(&access, &request)?;
    let mutation = MUTATION.iter().any(|(name, ..)| request.get_field_by_name(name).is_some());
    if mutation {
        for (name, number, kind) in &MUTATION {
            require(&request, name, *number, kind)?;
        }
        require(&response, "revision", 100, &Kind::String)?;
        if access.has_field_by_name("public") {
            return Err("is public and takes a `request_id`; remove it".into());
        }
    }
    Ok(Method { path, rule, request, response, mutation })
}

fn access(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<DynamicMessage, String> {
    let extension = pool
        .get_extension_by_name(OPTION)
        .ok_or_else(|| format!("the option `{OPTION}` is not defined; restore access.proto"))?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return Err(format!("has no access rule; add `option ({OPTION})`"));
    }
    match options.get_extension(&extension).as_message() {
        Some(message) => Ok(message.clone()),
        None => Err(format!("`{OPTION}` is not a message; restore access.proto")),
    }
}

fn rule(access: &DynamicMessage, request: &MessageDescriptor) -> Result<String, String> {
    let field = |name: &str| access.get_field_by_name(name).map(std::borrow::Cow::into_owned);
    let set = |name: &str| access.has_field_by_name(name);
    let place = field("on").and_then(|on| on.as_enum_number()).unwrap_or_default();
    let place_source = match place {
        0 => "Tenant",
        1 => "Installation",
        2 => "EachScope",
        _ => return Err("names an unknown place; use one of `Place`".into()),
    };
    let others = permissions(field("or_any_of"))?;
    if !others.is_empty() && !set("oneself") {
        return Err("has `or_any_of` without `oneself`; use `permission`".into());
    }
    let asked = if set("public") {
        if field("public").is_none_or(|why| why.as_str().is_none_or(str::is_empty)) {
            return Err("is public without saying why that is safe; write it down".into());
        }
        return Ok("Rule::Public".into());
    } else if set("authenticated") && is_true(field("authenticated")) {
        return Ok("Rule::Authenticated".into());
    } else if set("oneself") && is_true(field("oneself")) {
        if others.is_empty() && place != 0 {
            return Err("is for oneself alone and names a place; remove it".into());
        }
        format!("Rule::Oneself {{ or_any_of: &{others:?}, on: Place::{place_source} }}")
    } else if let Some(Value::Message(permission)) =
        field("permission").filter(|_| set("permission"))
    {
        let any_of = permission.get_field_by_name("any_of").map(std::borrow::Cow::into_owned);
        let any_of = permissions(any_of)?;
        if any_of.is_empty() {
            return Err("has an empty list of permissions; name at least one".into());
        }
        format!("Rule::Permission {{ any_of: &{any_of:?}, on: Place::{place_source} }}")
    } else {
        return Err("has an empty access rule; set one of its kinds".into());
    };
    let needs_tenant = place != 1 && (set("permission") || !others.is_empty());
    if needs_tenant && request.get_field_by_name("tenant").is_none_or(|f| f.kind() != Kind::String)
    {
        return Err(
            "asks for a permission on a tenant that the request does not name; add `tenant`".into(),
        );
    }
    Ok(asked)
}

fn is_true(value: Option<Value>) -> bool {
    value.and_then(|value| value.as_bool()).unwrap_or_default()
}

fn permissions(list: Option<Value>) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for value in list.as_ref().and_then(Value::as_list).unwrap_or_default() {
        let name = value.as_str().unwrap_or_default();
        let rest = name.strip_prefix("iam.").unwrap_or_default();
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if !rest.split('.').all(|word| !word.is_empty() && word.chars().all(good)) {
            return Err(format!(
                "asks for `{name}`; only permissions of the module `iam` are ours"
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn require(
    message: &MessageDescriptor,
    name: &str,
    number: u32,
    kind: &Kind,
) -> Result<(), String> {
    let fits = |f: &FieldDescriptor| f.number() == number && f.kind() == *kind && !f.is_list();
    if message.get_field_by_name(name).is_some_and(|field| fits(&field)) {
        return Ok(());
    }
    let message = message.name();
    Err(format!("is a mutation, but `{message}` lacks `{name} = {number}` of its kind; add it"))
}

/// Secret fields that generated code could print.
fn secret_problems(pool: &DescriptorPool) -> Vec<String> {
    let mut problems = Vec::new();
    for message in impls::secret_messages(pool) {
        if message.parent_message().is_some() {
            problems
                .push(format!("{}: holds a secret; move it to the top level", message.full_name()));
        }
        for field in message.fields().filter(impls::is_secret) {
            if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) {
                problems.push(format!(
                    "{}: is a secret in a oneof; wrap it in a message",
                    field.full_name()
                ));
            }
        }
    }
    problems
}
