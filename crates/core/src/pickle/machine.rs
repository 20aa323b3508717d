//! A reader of pickles (protocols 2 to 5): a stack machine that builds values and calls nothing. Every opcode makes one
//! value at most, and texts are not copied, so what is built is larger than the pickle by a constant factor at most.

use std::collections::HashMap;

/// A value's number.
pub(super) type Id = usize;

/// A value. Containers hold numbers of values: they may be shared, or hold themselves.
#[derive(Debug)]
pub(super) enum Node {
    /// None, a float, bytes, a set: whatever no tensor is made of.
    Other,
    Int(i64),
    Text(String),
    /// A list or a tuple.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, as `module.name`.
    Global(String),
    /// What such a one would make of arguments.
    Call(Id, Id),
    /// What lies outside the pickle.
    Persistent(Id),
}

/// The machine after its run.
pub(super) struct Machine {
    nodes: Vec<Node>,
}

/// Longest name of a module or class, in bytes.
const MAX_NAME: usize = 128;

/// What a class that makes a dict is called.
const DICTS: [&str; 2] = ["collections.OrderedDict", "collections.defaultdict"];

impl Machine {
    /// Runs `bytes`; also the number of the value that they leave.
    pub fn run(bytes: &[u8]) -> Result<(Machine, Id), String> {
        let mut run = Run {
            bytes,
            at: 0,
            machine: Machine { nodes: Vec::new() },
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let at = run.at;
            match run.step() {
                Ok(None) => {}
                Ok(Some(top)) => return Ok((run.machine, top)),
                Err(reason) => return Err(format!("its pickle is broken at byte {at}: {reason}")),
            }
        }
    }

    pub fn get(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::Other)
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Node::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// What would be called, and with which arguments.
    pub fn call(&self, id: Id) -> Option<(&str, Id)> {
        match self.get(id) {
            Node::Call(callee, args) => Some((self.global(*callee)?, *args)),
            _ => None,
        }
    }
}

struct Run<'a> {
    bytes: &'a [u8],
    at: usize,
    machine: Machine,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Step<T> = Result<T, String>;

impl<'a> Run<'a> {
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end
            .ok_or_else(|| format!("{count} bytes were expected, {} are left", self.bytes.len() - self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `width` bytes, at most 8.
    fn number(&mut self, width: usize) -> Step<u64> {
        Ok(self.take(width)?.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    /// Bytes that a length of `width` bytes stands before.
    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let count = self.number(width)?;
        self.take(usize::try_from(count).map_err(|_| format!("{count} bytes were claimed"))?)
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("a line does not end")?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.machine.nodes.len());
        self.machine.nodes.push(node);
    }

    fn text(&mut self, width: usize) -> Step<()> {
        let text = String::from_utf8_lossy(self.counted(width)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn pop(&mut self) -> Step<Id> {
        // What lies below a mark is not the operation's.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "the stack is empty".into())
    }

    /// Everything above the last mark.
    fn marked(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, count: usize) -> Step<()> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Step<Vec<Id>>>()?;
        items.reverse();
        self.push(Node::List(items));
        Ok(())
    }

    fn set(&mut self, dict: Id, items: &[Id]) {
        if let Some(Node::Dict(pairs)) = self.machine.nodes.get_mut(dict) {
            pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
    }

    fn extend(&mut self, list: Id, items: &[Id]) {
        if let Some(Node::List(known)) = self.machine.nodes.get_mut(list) {
            known.extend_from_slice(items);
        }
    }

    /// What a class or function makes of arguments: a dict, or a box.
    fn called(&mut self, callee: Id, args: Id) {
        let dict = self.machine.global(callee).is_some_and(|name| DICTS.contains(&name));
        self.push(if dict { Node::Dict(Vec::new()) } else { Node::Call(callee, args) });
    }

    fn recall(&mut self, key: u64) -> Step<()> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("nothing was kept as {key}"))?;
        self.stack.push(id);
        Ok(())
    }

    /// One opcode; the value that is left at the last.
    fn step(&mut self) -> Step<Option<Id>> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => drop(self.take(1)?), // protocol
            0x95 => drop(self.take(8)?), // frame
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.push(Node::Other),
            0x88 => self.push(Node::Int(1)),
            0x89 => self.push(Node::Int(0)),
            b'K' => {
                let n = self.number(1)?;
                self.push(Node::Int(n as i64));
            }
            b'M' => {
                let n = self.number(2)?;
                self.push(Node::Int(n as i64));
            }
            b'J' => {
                let n = self.number(4)?;
                self.push(Node::Int(i64::from(n as u32 as i32)));
            }
            0x8a | 0x8b => {
                let bytes = self.counted(if opcode == 0x8a { 1 } else { 4 })?;
                // Two's complement; larger ones count no tensor's values.
                let sign = if bytes.last().is_some_and(|byte| *byte > 127) { -1i64 } else { 0 };
                let number = bytes.iter().rev().fold(sign, |n, byte| n << 8 | i64::from(*byte));
                self.push(if bytes.len() <= 8 { Node::Int(number) } else { Node::Other });
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Other);
            }
            b'X' | b'T' => self.text(4)?,
            0x8c | b'U' => self.text(1)?,
            0x8d => self.text(8)?,
            b'B' | b'C' | 0x8e | 0x96 => {
                self.counted(match opcode {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                self.push(Node::Other);
            }
            b']' | b')' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            0x8f => self.push(Node::Other), // set
            b't' | b'l' => {
                let items = self.marked()?;
                self.push(Node::List(items));
            }
            b'd' => {
                let items = self.marked()?;
                self.push(Node::Dict(Vec::new()));
                let dict = self.top()?;
                self.set(dict, &items);
            }
            0x91 => {
                self.marked()?;
                self.push(Node::Other); // frozenset
            }
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b'a' => {
                let item = self.pop()?;
                let list = self.top()?;
                self.extend(list, &[item]);
            }
            b'e' => {
                let items = self.marked()?;
                let list = self.top()?;
                self.extend(list, &items);
            }
            0x90 => drop(self.marked()?), // into a set
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                let dict = self.top()?;
                self.set(dict, &[key, value]);
            }
            b'u' => {
                let items = self.marked()?;
                let dict = self.top()?;
                self.set(dict, &items);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(format!("{module}.{name}")));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                // Both may be values that are named again and again: no copies of long ones.
                let text = |id| self.machine.text(id).filter(|text| text.len() <= MAX_NAME);
                let text = |id| text(id).ok_or("a class is named by no short text");
                let name = format!("{}.{}", text(module)?, text(name)?);
                self.push(Node::Global(name));
            }
            b'R' | 0x81 => {
                let (args, callee) = (self.pop()?, self.pop()?);
                self.called(callee, args);
            }
            0x92 => {
                let (_, args, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.called(callee, args);
            }
            b'b' => drop(self.pop()?), // attributes
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
            b'q' | b'r' => {
                let key = self.number(if opcode == b'q' { 1 } else { 4 })?;
                let top = self.top()?;
                self.memo.insert(key, top);
            }
            0x94 => {
                let (key, top) = (self.memo.len() as u64, self.top()?);
                self.memo.insert(key, top);
            }
            b'h' | b'j' => {
                let key = self.number(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            other => return Err(format!("0x{other:02x} is no opcode that PyTorch writes")),
        }
        Ok(None)
    }
}
