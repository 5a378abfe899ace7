//! What the results of one check come to.

/// What is known of what is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Too few results yet.
    #[default]
    Unknown,
    /// It succeeds.
    Up,
    /// It fails, and how, in words.
    Down(String),
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Success,
    /// Not as expected, or nothing in time; in words, such as "status 503, expected 200-299".
    Failure(String),
    /// This node could not ask, and why; it says nothing of who was to be asked.
    NotAsked(String),
}

/// How many results in a row change what is known, as in Kubernetes' probes. keepalived's `retry` is `failure - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures until it is down, 1 or more.
    pub failure: u8,
    /// Successes until it is up, 1 or more.
    pub success: u8,
}

/// The state of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    health: Health,
    /// Successes since the last failure.
    successes: u8,
    /// Failures since the last success.
    failures: u8,
    /// The last failure, and how often it came in a row.
    last_failure: (String, u8),
}

impl Machine {
    /// Goes on with what was known before.
    pub fn with(health: Health) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// What is known.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Whether the last result speaks against what is known, so that the next check is made sooner. While nothing is known
    /// everything does.
    pub const fn is_contradicted(&self) -> bool {
        match self.health {
            Health::Unknown => true,
            Health::Up => self.failures > 0,
            Health::Down(_) => self.successes > 0,
        }
    }

    /// A result came; whether it changed what is known.
    pub fn note(&mut self, outcome: &Outcome, thresholds: Thresholds) -> bool {
        match outcome {
            Outcome::Success => self.succeed(thresholds.success),
            // Nobody who serves goes for a trouble of ours; who does not serve is told why nothing comes of it.
            Outcome::NotAsked(_) if self.health == Health::Up => false,
            Outcome::Failure(words) | Outcome::NotAsked(words) => {
                self.fail(words, thresholds.failure)
            }
        }
    }

    fn succeed(&mut self, threshold: u8) -> bool {
        self.successes = self.successes.saturating_add(1);
        self.failures = 0;
        self.last_failure = (String::new(), 0);
        let changes = self.health != Health::Up && self.successes >= threshold;
        if changes {
            self.health = Health::Up;
        }
        changes
    }

    fn fail(&mut self, words: &str, threshold: u8) -> bool {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if self.last_failure.0 == words {
            self.last_failure.1 = self.last_failure.1.saturating_add(1);
        } else {
            self.last_failure = (words.to_owned(), 1);
        }
        let (count, changes) = match &self.health {
            Health::Unknown | Health::Up => (self.failures, true),
            // Words that change with every result would be a write to the API server with every result.
            Health::Down(known) => (self.last_failure.1, known != words),
        };
        let changes = changes && count >= threshold;
        if changes {
            self.health = Health::Down(words.to_owned());
        }
        changes
    }
}
