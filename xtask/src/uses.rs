//! Finds in Rust source which modules and crates it names. Not a compiler: a lexer and paths, enough to judge directions.

use crate::lex::{Kind, Token, lex};

/// A name that some source line leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A top-level module of the same crate, and what of it is named (`None`: the module itself).
    Module(String, Option<String>),
    /// The first segment of any other path: a crate, or a type or child module that only looks like one.
    Crate(String),
}

/// A named target with the line that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) line: usize,
    pub(crate) target: Target,
}

/// Everything that `source`, the file of module `own` (such as `["export", "otlp"]`), names outside of its top-level module.
/// Unit tests at the end of a file are left out: they may know what they like.
pub(crate) fn find(source: &str, own: &[&str]) -> Vec<Use> {
    let tokens = lex(without_tests(source));
    let mut uses = Vec::new();
    let mut local = Vec::new();
    let mut here = own.to_vec();
    let mut depth = 0;
    let mut inline_modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = matches!(tokens[at].kind, Kind::Word(_)) && (at == 0 || tokens[at - 1].kind != Kind::PathSep);
        if !starts {
            match tokens[at].kind {
                Kind::Other('{') => {
                    depth += 1;
                    if let Some(name) = module_before(&tokens[..at]) {
                        here.push(name);
                        inline_modules.push(depth);
                    }
                }
                Kind::Other('}') => {
                    if inline_modules.pop_if(|opened| *opened == depth).is_some() {
                        here.pop();
                    }
                    depth -= 1;
                }
                _ => {}
            }
            at += 1;
            continue;
        }
        let line = tokens[at].line;
        let after = |word: &str| at > 0 && tokens[at - 1].kind == Kind::Word(word.into());
        let (after_use, after_mod) = (after("use"), after("mod"));
        let mut paths = Vec::new();
        let next = expand(&tokens, at, &[], &mut paths);
        let inside = paths.iter().filter(|path| after_mod || after_use && is_internal(path));
        local.extend(inside.filter_map(|path| path.last().cloned()));
        let outside =
            paths.into_iter().filter(|path| after_use || path.len() > 1).filter_map(|path| resolve(&path, &here));
        uses.extend(outside.map(|target| Use { line, target }));
        at = next;
    }
    // `use crate::ring;` makes `ring::drain()` a path into the module, whatever crate has the same name.
    uses.retain(|found| !matches!(&found.target, Target::Crate(name) if local.contains(name)));
    uses
}

/// The name of the inline module that the brace behind these tokens opens.
fn module_before(tokens: &[Token]) -> Option<&str> {
    match tokens {
        [.., Token { kind: Kind::Word(word), .. }, Token { kind: Kind::Word(name), .. }] if word == "mod" => Some(name),
        _ => None,
    }
}

fn is_internal(path: &[String]) -> bool {
    matches!(path.first().map(String::as_str), Some("crate" | "self" | "super"))
}

/// What a path leads to, `None` when it stays inside the module.
fn resolve(path: &[String], own: &[&str]) -> Option<Target> {
    let mut base = own.to_vec();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|segment| segment == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        head => return Some(Target::Crate(head.to_owned())),
    }
    let mut whole = base.into_iter().chain(rest.iter().map(String::as_str));
    let top = whole.next()?;
    (Some(&top) != own.first()).then(|| Target::Module(top.to_owned(), whole.next().map(str::to_owned)))
}

/// Adds all paths that start at token `at`, groups in braces spread out, and tells where they end.
fn expand(tokens: &[Token], at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = at;
    loop {
        match tokens.get(at).map(|token| &token.kind) {
            Some(Kind::Word(word)) => path.push(word.clone()),
            Some(Kind::Other('{')) if path.len() > prefix.len() || !prefix.is_empty() => {
                return expand_group(tokens, at + 1, &path, paths);
            }
            // `crate::x::*`, `Vec::<u8>::new`: what came before is what counts.
            _ => break,
        }
        at += 1;
        if tokens.get(at).map(|token| &token.kind) != Some(&Kind::PathSep) {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

/// The inside of `{a, b::c, d::{e}}` after `prefix`; ends behind the closing brace.
fn expand_group(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    while let Some(token) = tokens.get(at) {
        at = match &token.kind {
            Kind::Other('}') => return at + 1,
            // `x as y`: the new name leads nowhere else.
            Kind::Word(word) if word == "as" => at + 2,
            Kind::Word(word) if word == "self" => {
                paths.push(prefix.to_vec());
                at + 1
            }
            Kind::Word(_) => expand(tokens, at, prefix, paths),
            _ => at + 1,
        };
    }
    at
}

/// The source up to `#[cfg(test)] mod … {`.
fn without_tests(source: &str) -> &str {
    let mut offset = 0;
    let mut lines = source.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let inline = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.trim_end().ends_with('{'));
        if line.trim() == "#[cfg(test)]" && inline {
            return &source[..offset];
        }
        offset += line.len();
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(source: &str, own: &[&str]) -> Vec<Target> {
        let top = |target| match target {
            Target::Module(name, _) => Target::Module(name, None),
            Target::Crate(name) => Target::Crate(name),
        };
        let mut found: Vec<_> = find(source, own).into_iter().map(|found| top(found.target)).collect();
        found.sort();
        found.dedup();
        found
    }

    fn modules(names: &[&str]) -> Vec<Target> {
        names.iter().map(|name| Target::Module((*name).to_owned(), None)).collect()
    }

    #[test]
    fn every_form_of_an_internal_path_is_found() {
        let forms = [
            "use crate::detect::Finding;",
            "use crate::detect;",
            "use crate::{\n    detect::{Finding, Kind as K},\n};",
            "fn f() { crate::detect::open(1) }",
            "use super::detect::Finding;",
            "pub(crate) use crate::detect::*;",
            "type T = Vec<crate::detect::Finding>;",
        ];
        for form in forms {
            assert!(targets(form, &["ledger"]).contains(&modules(&["detect"])[0]), "{form}");
        }
    }

    #[test]
    fn super_leads_out_only_as_far_as_it_goes() {
        assert_eq!(targets("use super::sibling::X;", &["export", "otlp"]), []);
        assert_eq!(targets("use super::super::ledger::X;", &["export", "otlp"]), modules(&["ledger"]));
        assert_eq!(targets("use self::x::Y; use crate::ledger::own;", &["ledger"]), []);
    }

    #[test]
    fn super_in_an_inline_module_stays_inside() {
        let source = "use crate::event::kind;\npub mod lost {\n    use super::kind;\n    fn f() { if x {} }\n}\nuse super::clock;\n";
        assert_eq!(targets(source, &["tally"]), modules(&["clock", "event"]));
    }

    #[test]
    fn the_item_is_told_with_its_module() {
        let found = find("use crate::ledger::{Ledger, self};", &["export"]);
        let item = |item: Option<&str>| Target::Module("ledger".into(), item.map(str::to_owned));
        let targets: Vec<_> = found.into_iter().map(|found| found.target).collect();
        assert_eq!(targets, [item(Some("Ledger")), item(None)]);
    }

    #[test]
    fn groups_are_spread_out() {
        let source = "use crate::{clock::Clock, event::{self, State}, ring as r};";
        assert_eq!(targets(source, &["ledger"]), modules(&["clock", "event", "ring"]));
    }

    #[test]
    fn crates_are_found_in_uses_paths_and_attributes() {
        for source in ["use tokio;", "use tokio::{fs, net};", "#[tokio::main] fn f() {}", "fn f() { tokio::spawn(x) }"]
        {
            assert_eq!(targets(source, &["ledger"]), [Target::Crate("tokio".into())], "{source}");
        }
    }

    #[test]
    fn an_imported_or_declared_module_is_no_crate() {
        assert_eq!(targets("mod aya;\nfn f() { aya::load() }", &["loader"]), []);
        assert_eq!(targets("use crate::tokio;\nfn f() { tokio::spawn() }", &["ledger"]), modules(&["tokio"]));
    }

    #[test]
    fn comments_strings_and_tests_name_nothing() {
        let source = "// use crate::a::A;\n/* crate::b::B */ const S: &str = \"crate::c::C \\\" \"; const R: &str = r#\"crate::d::\"#;\n\
            const Q: char = '\"'; fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests {\n    use crate::e::E;\n}\n";
        assert_eq!(targets(source, &["ledger"]), []);
    }

    #[test]
    fn lines_are_right_after_strings_over_several_lines() {
        let source = "const S: &str = \"a\nb\";\n/* c\n */\nuse crate::ring::Ring;\n";
        assert_eq!(find(source, &["ledger"])[0].line, 5);
    }
}
