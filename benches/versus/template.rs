//! Templates of configurations: `{{name}}`, and `{{#list}} ... {{/list}}` for each of a list.

use std::collections::BTreeMap;

#[derive(Clone)]
pub enum Value {
    Text(String),
    List(Vec<Context>),
}

pub type Context = BTreeMap<&'static str, Value>;

impl<T: ToString> From<T> for Value {
    fn from(text: T) -> Self {
        Self::Text(text.to_string())
    }
}

impl Value {
    /// A section that is there, or not.
    pub fn section(is_there: bool) -> Self {
        Self::List(vec![Context::new(); usize::from(is_there)])
    }
}

/// # Panics
/// When the template asks for what the context has not: both are ours.
pub fn render(template: &str, context: &Context) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    fill(template, &[context], &mut out);
    out
}

fn fill(mut rest: &str, scopes: &[&Context], out: &mut String) {
    let look_up = |name: &str| {
        let found = scopes.iter().rev().find_map(|scope| scope.get(name));
        found.unwrap_or_else(|| panic!("the template asks for {name:?}"))
    };
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (tag, after) = after.split_once("}}").expect("a tag ends");
        let Some(list) = tag.strip_prefix('#') else {
            match look_up(tag) {
                Value::Text(text) => out.push_str(text),
                Value::List(_) => panic!("{tag:?} is a list"),
            }
            rest = after;
            continue;
        };
        let (inner, after) = after.split_once(&format!("{{{{/{list}}}}}")).expect("a section ends");
        // A tag alone on its line leaves no empty line.
        let inner = inner.strip_prefix('\n').unwrap_or(inner);
        rest = after.strip_prefix('\n').unwrap_or(after);
        let Value::List(items) = look_up(list) else { panic!("{list:?} is no list") };
        for item in items {
            fill(inner, &[scopes, &[item]].concat(), out);
        }
    }
    out.push_str(rest);
}
