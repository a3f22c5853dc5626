/// What is asked for.
#[derive(Clone)]
pub struct Job {
    pub hosts: Vec<String>,
    /// One of each is drawn for every request.
    pub paths: Vec<String>,
    pub keys: Keys,
    /// Requests with a body are POSTs.
    pub body: &'static [u8],
    /// The length that every answer's body must have.
    pub answer_len: usize,
    pub random: Random,
}

/// The API keys that requests carry, of which each has a rate limit of its own.
#[derive(Clone)]
pub enum Keys {
    /// None: limits go by address.
    None,
    /// One after another of so many, and again.
    InTurn { next: u64, of: u64 },
    /// Any of so many.
    Any { of: u64 },
}

/// One request of a [`Job`].
pub struct Ask<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub key: Option<u64>,
    pub body: &'static [u8],
}

impl Job {
    pub fn next(&mut self) -> Ask<'_> {
        let key = match &mut self.keys {
            Keys::None => None,
            Keys::InTurn { next, of } => {
                *next += 1;
                Some((*next - 1) % *of)
            }
            Keys::Any { of } => Some(self.random.below(*of)),
        };
        let mut draw = |of: &[String]| if of.len() == 1 { 0 } else { self.random.below(of.len() as u64) as usize };
        let (host, path) = (draw(&self.hosts), draw(&self.paths));
        Ask { host: &self.hosts[host], path: &self.paths[path], key, body: self.body }
    }
}

/// The same numbers in every run: xorshift64*.
#[derive(Clone)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// The pause between two of those who come at random, one a unit of time on average.
    pub fn exponential(&mut self) -> f64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        -(1.0 - uniform).ln()
    }
}
