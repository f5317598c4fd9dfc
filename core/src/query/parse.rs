//! From tokens to a query, by recursive descent.

use super::functions;
use super::tokens::{Token, tokens};
use super::{Expr, Item, Node, Operator, Query, QueryError, TEXT_MAX, Value};

/// Deepest nesting of expressions.
const DEPTH_MAX: usize = 64;
/// Most rows that a limit may name.
const ROWS_MAX: f64 = 1e12;
/// Words that end an expression, so that none of them is taken for a name.
const KEYWORDS: [&str; 27] = [
    "select", "distinct", "from", "where", "group", "by", "having", "qualify", "order", "limit", "as", "asc", "desc",
    "and", "or", "not", "is", "null", "in", "between", "like", "case", "when", "then", "else", "end", "over",
];

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

pub(super) fn query(text: &str) -> Result<Query, QueryError> {
    if text.len() > TEXT_MAX {
        let what = format!("it is {} bytes long", text.len());
        return Err(QueryError { at: 0, what, remedy: format!("write at most {TEXT_MAX} bytes") });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let query = parser.query()?;
    let _ = parser.sign(";");
    match parser.peek() {
        Token::End => Ok(query),
        _ => Err(parser.unexpected("nothing more")),
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].1.clone();
        // The end stays.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        let found = match self.peek() {
            Token::Word(word) => format!("the word {word:?}"),
            Token::Quoted(name) => format!("the name {name:?}"),
            Token::Number(number) => format!("the number {number}"),
            Token::Text(text) => format!("the text '{text}'"),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::End => "the end".to_owned(),
        };
        QueryError { at: self.at(), what: format!("{found} stands here"), remedy: format!("expected {expected}") }
    }

    fn sign(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if there {
            self.take();
        }
        there
    }

    fn must(&mut self, sign: &'static str) -> Result<(), QueryError> {
        if self.sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("{sign:?}"))) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let there = self.is_word(word);
        if there {
            self.take();
        }
        there
    }

    fn must_word(&mut self, word: &'static str) -> Result<(), QueryError> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected(&word.to_uppercase())) }
    }

    fn name(&mut self, expected: &str) -> Result<String, QueryError> {
        match self.peek() {
            Token::Word(word) if !KEYWORDS.contains(&word.to_lowercase().as_str()) => {}
            Token::Quoted(_) => {}
            _ => return Err(self.unexpected(expected)),
        }
        match self.take() {
            Token::Word(name) | Token::Quoted(name) => Ok(name),
            _ => Ok(String::new()),
        }
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        self.must_word("select")?;
        let distinct = self.word("distinct");
        let mut items = vec![self.item()?];
        while self.sign(",") {
            items.push(self.item()?);
        }
        let from = if self.word("from") { self.name("the name of a table")? } else { "results".to_owned() };
        let filter = if self.word("where") { Some(self.expression()?) } else { None };
        let mut group = Vec::new();
        if self.word("group") {
            self.must_word("by")?;
            group = self.expressions()?;
        }
        let having = if self.word("having") { Some(self.expression()?) } else { None };
        let qualify = if self.word("qualify") { Some(self.expression()?) } else { None };
        let order = if self.word("order") { self.order()? } else { Vec::new() };
        let mut limit = None;
        if self.word("limit") {
            let number = matches!(self.peek(), Token::Number(n) if n.fract() == 0.0 && *n <= ROWS_MAX);
            match self.peek() {
                Token::Number(n) if number => limit = Some(*n as usize),
                _ => return Err(self.unexpected("a whole number of rows")),
            }
            self.take();
        }
        Ok(Query { distinct, items, from, filter, group, having, qualify, order, limit })
    }

    fn item(&mut self) -> Result<Item, QueryError> {
        if self.sign("*") {
            return Ok(Item::All);
        }
        let begin = self.next;
        let node = self.expression()?;
        let name = if self.word("as") {
            self.name("a name")?
        } else if let Expr::Column(name) = &node.expr {
            name.clone()
        } else {
            self.written(begin)
        };
        Ok(Item::Named(node, name))
    }

    /// The tokens from one on as text, to name an expression that has no name.
    fn written(&self, begin: usize) -> String {
        let mut text = String::new();
        for (_, token) in &self.tokens[begin..self.next] {
            let part = match token {
                Token::Word(word) | Token::Quoted(word) => word.clone(),
                Token::Number(number) => number.to_string(),
                Token::Text(inside) => format!("'{inside}'"),
                Token::Sign(sign) => (*sign).to_owned(),
                Token::End => String::new(),
            };
            let tight = part == ")" || part == "," || part == "(" || text.ends_with('(') || text.is_empty();
            if !tight {
                text.push(' ');
            }
            text.push_str(&part);
        }
        text
    }

    fn expressions(&mut self) -> Result<Vec<Node>, QueryError> {
        let mut all = vec![self.expression()?];
        while self.sign(",") {
            all.push(self.expression()?);
        }
        Ok(all)
    }

    fn order(&mut self) -> Result<Vec<(Node, bool)>, QueryError> {
        self.must_word("by")?;
        let mut order = Vec::new();
        loop {
            let node = self.expression()?;
            let descending = self.word("desc");
            if !descending {
                self.word("asc");
            }
            order.push((node, descending));
            if !self.sign(",") {
                return Ok(order);
            }
        }
    }

    fn expression(&mut self) -> Result<Node, QueryError> {
        self.deeper(|parser| parser.binary(0))
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, QueryError>) -> Result<T, QueryError> {
        if self.depth >= DEPTH_MAX {
            let what = format!("expressions are nested more than {DEPTH_MAX} deep");
            return Err(QueryError { at: self.at(), what, remedy: "write it flatter".to_owned() });
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// The operator that stands next, its level of binding.
    fn operator(&self) -> Option<(Operator, usize)> {
        use Operator::{And, AtLeast, AtMost, Equal, Less, Minus, Modulo, More, Or, Over, Plus, Times, Unequal};
        match self.peek() {
            Token::Word(word) if word.eq_ignore_ascii_case("or") => Some((Or, 0)),
            Token::Word(word) if word.eq_ignore_ascii_case("and") => Some((And, 1)),
            Token::Sign(sign) => Some(match *sign {
                "=" | "==" => (Equal, 3),
                "<>" | "!=" => (Unequal, 3),
                "<" => (Less, 3),
                "<=" => (AtMost, 3),
                ">" => (More, 3),
                ">=" => (AtLeast, 3),
                "+" => (Plus, 4),
                "-" => (Minus, 4),
                "*" => (Times, 5),
                "/" => (Over, 5),
                "%" => (Modulo, 5),
                _ => return None,
            }),
            _ => None,
        }
    }

    /// Operators that bind at least as tightly as a level; chains of one level lean to the left and do not nest.
    fn binary(&mut self, level: usize) -> Result<Node, QueryError> {
        if level == 2 && self.is_word("not") {
            let at = self.at();
            self.take();
            let inside = self.deeper(|parser| parser.binary(2))?;
            return Ok(Node { at, expr: Expr::Not(Box::new(inside)) });
        }
        if level > 5 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        let mut chain = 0;
        loop {
            if level == 3 {
                left = self.predicates(left)?;
            }
            let Some((operator, _)) = self.operator().filter(|(_, bound)| *bound == level) else { return Ok(left) };
            self.take();
            chain += 1;
            if chain > 4 * DEPTH_MAX {
                let what = format!("more than {} operators follow one another", 4 * DEPTH_MAX);
                return Err(QueryError { at: self.at(), what, remedy: "use IN, or fewer".to_owned() });
            }
            let right = self.binary(level + 1)?;
            left = Node { at: left.at, expr: Expr::Binary(operator, Box::new(left), Box::new(right)) };
        }
    }

    /// `IS NULL`, `IN`, `BETWEEN` and `LIKE`, after what they are about.
    fn predicates(&mut self, left: Node) -> Result<Node, QueryError> {
        let at = left.at;
        let negated = |node: Node, not: bool| if not { Node { at, expr: Expr::Not(Box::new(node)) } } else { node };
        if self.word("is") {
            let not = self.word("not");
            self.must_word("null")?;
            return Ok(negated(Node { at, expr: Expr::IsNull(Box::new(left)) }, not));
        }
        let follows = |parser: &Self| ["in", "between", "like"].iter().any(|word| parser.is_word(word));
        let not = self.is_word("not") && {
            self.take();
            if !follows(self) {
                return Err(self.unexpected("IN, BETWEEN or LIKE"));
            }
            true
        };
        if self.word("in") {
            self.must("(")?;
            let list = self.expressions()?;
            self.must(")")?;
            return Ok(negated(Node { at, expr: Expr::In(Box::new(left), list) }, not));
        }
        if self.word("between") {
            let low = self.deeper(|parser| parser.binary(4))?;
            self.must_word("and")?;
            let high = self.deeper(|parser| parser.binary(4))?;
            let compare = |operator, with: Node| {
                Box::new(Node { at, expr: Expr::Binary(operator, Box::new(left.clone()), Box::new(with)) })
            };
            let (from, to) = (compare(Operator::AtLeast, low), compare(Operator::AtMost, high));
            return Ok(negated(Node { at, expr: Expr::Binary(Operator::And, from, to) }, not));
        }
        if self.word("like") {
            let Token::Text(_) = self.peek() else { return Err(self.unexpected("a pattern in 'quotes'")) };
            let Token::Text(pattern) = self.take() else { return Ok(left) };
            return Ok(negated(Node { at, expr: Expr::Like(Box::new(left), pattern) }, not));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, QueryError> {
        let at = self.at();
        if self.sign("-") {
            let inside = self.deeper(Self::unary)?;
            return Ok(Node { at, expr: Expr::Negative(Box::new(inside)) });
        }
        if self.sign("(") {
            let inside = self.expression()?;
            self.must(")")?;
            return Ok(Node { at, expr: inside.expr });
        }
        let literal = match self.peek() {
            Token::Number(number) => Some(Value::Number(*number)),
            Token::Text(text) => Some(Value::Text(text.clone())),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Some(Value::Null),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Some(Value::Truth(true)),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Some(Value::Truth(false)),
            _ => None,
        };
        if let Some(value) = literal {
            self.take();
            return Ok(Node { at, expr: Expr::Literal(value) });
        }
        if self.word("case") {
            return self.case(at);
        }
        let quoted = matches!(self.peek(), Token::Quoted(_));
        let name = self.name("a value, a column or a function")?;
        if !quoted && self.sign("(") {
            return self.call(at, &name.to_lowercase());
        }
        Ok(Node { at, expr: Expr::Column(name) })
    }

    fn case(&mut self, at: usize) -> Result<Node, QueryError> {
        let mut arms = Vec::new();
        while self.word("when") {
            let condition = self.expression()?;
            self.must_word("then")?;
            arms.push((condition, self.expression()?));
        }
        if arms.is_empty() {
            return Err(self.unexpected("WHEN"));
        }
        let otherwise = if self.word("else") { Some(Box::new(self.expression()?)) } else { None };
        self.must_word("end")?;
        Ok(Node { at, expr: Expr::Case(arms, otherwise) })
    }

    /// A function, its name and opening parenthesis read.
    fn call(&mut self, at: usize, name: &str) -> Result<Node, QueryError> {
        let mut arguments = Vec::new();
        let all = name == "count" && self.sign("*");
        if !all && !matches!(self.peek(), Token::Sign(")")) {
            arguments = self.expressions()?;
        }
        self.must(")")?;
        let counts = functions::arguments(name).ok_or_else(|| QueryError {
            at,
            what: format!("there is no function {name:?}"),
            remedy: format!("use one of {}", functions::NAMES.map(|(known, ..)| known).join(", ")),
        })?;
        if !counts.contains(&arguments.len()) || (name == "count" && !all && arguments.is_empty()) {
            let (least, most) = (counts.start(), counts.end());
            let remedy = if least == most { format!("give it {least}") } else { format!("give it {least} to {most}") };
            return Err(QueryError { at, what: format!("{name} has {} arguments", arguments.len()), remedy });
        }
        if !functions::is_neighbour(name) {
            return Ok(Node { at, expr: Expr::Call(name.to_owned(), arguments) });
        }
        self.must_word("over")?;
        self.must("(")?;
        let mut partition = Vec::new();
        if self.word("partition") {
            self.must_word("by")?;
            partition = self.expressions()?;
        }
        self.must_word("order")?;
        let order = self.order()?;
        self.must(")")?;
        let argument = arguments.into_iter().next().unwrap_or(Node { at, expr: Expr::Literal(Value::Null) });
        Ok(Node { at, expr: Expr::Over(name.to_owned(), Box::new(argument), partition, order) })
    }
}
