//! Cuts Rust source into the tokens that paths are made of.

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Word(String),
    PathSep,
    Other(char),
}

/// A token and the line it stands on, counted from 1.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// Words, `::` and single characters; comments, strings and character literals are gone.
pub(crate) fn lex(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => rest.windows(2).position(|pair| pair == ['*', '/']).map_or(rest.len(), |end| end + 2),
            ['"', ..] => string(rest),
            ['r', '"' | '#', ..] if raw_string(rest).is_some() => raw_string(rest).unwrap_or(1),
            ['\'', '\\', _, tail @ ..] => 3 + tail.iter().position(|c| *c == '\'').map_or(0, |end| end + 1),
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => {
                tokens.push(Token { line, kind: Kind::PathSep });
                2
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let end = rest.iter().position(|c| !c.is_alphanumeric() && *c != '_').unwrap_or(rest.len());
                tokens.push(Token { line, kind: Kind::Word(rest[..end].iter().collect()) });
                end
            }
            [c, ..] if c.is_whitespace() => 1,
            [c, ..] => {
                tokens.push(Token { line, kind: Kind::Other(*c) });
                1
            }
            [] => break,
        };
        line += rest[..length].iter().filter(|c| **c == '\n').count();
        at += length;
    }
    tokens
}

/// Length of the string literal at the start.
fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while let Some(c) = rest.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `r"…"`, `r#"…"#` at the start, if it is one (`r#type` is a word).
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let mut closing = vec!['"'];
    closing.resize(1 + hashes, '#');
    let end = rest[open + 1..].windows(closing.len()).position(|window| window == closing);
    Some(end.map_or(rest.len(), |end| open + 1 + end + closing.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<(usize, String)> {
        let words = lex(source).into_iter().filter_map(|token| match token.kind {
            Kind::Word(word) => Some((token.line, word)),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn what_is_no_code_is_left_out() {
        assert_eq!(words("// a\n/* b\n*/ c \"d \\\" e\" f"), [(3, "c".into()), (3, "f".into())]);
        assert_eq!(words("r#\"a \" b\"# c r\"d\""), [(1, "c".into())]);
    }

    #[test]
    fn quotes_in_characters_open_no_string() {
        assert_eq!(words("'\"' a '\\'' b '\\u{1}' c"), [(1, "a".into()), (1, "b".into()), (1, "c".into())]);
        assert_eq!(words("&'a str"), [(1, "a".into()), (1, "str".into())]);
    }

    #[test]
    fn a_path_is_words_and_separators() {
        let kinds: Vec<_> = lex("a::b;").into_iter().map(|token| token.kind).collect();
        assert_eq!(kinds, [Kind::Word("a".into()), Kind::PathSep, Kind::Word("b".into()), Kind::Other(';')]);
    }
}
