//! Reads what `cargo test` prints, and adds it up over several runs.

/// Sum of libtest's closing lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Results {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, and runs that died without naming a failed test.
    pub(crate) failed: u64,
    /// Tests that were not run because they are marked so.
    pub(crate) ignored: u64,
    /// A test program is running.
    open: bool,
}

impl Results {
    /// Takes one line of output. `running 4 tests` opens a test program, this line closes it:
    /// `test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    pub(crate) fn read_line(&mut self, line: &str) {
        if is_opening(line) {
            self.close();
            self.open = true;
            return;
        }
        let Some((_, counts)) = line.trim().strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        let count = |what: &str| {
            let named = counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok());
            named.unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
        self.open = false;
    }

    /// A test program that was opened and never closed its account has died: one failure.
    fn close(&mut self) {
        self.failed += u64::from(std::mem::take(&mut self.open));
    }

    /// A run that ended badly without a failed test (it does not compile, sudo refused) is one failure too.
    pub(crate) fn end_of_run(&mut self, success: bool) {
        self.close();
        if !success && self.failed == 0 {
            self.failed = 1;
        }
    }

    /// Something that could not even start.
    pub(crate) fn failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// How many tests really ran.
    pub(crate) fn executed(self) -> u64 {
        self.passed + self.failed
    }
}

/// `running 1 test`, `running 12 tests`.
fn is_opening(line: &str) -> bool {
    let count =
        line.strip_prefix("running ").and_then(|rest| rest.strip_suffix(" tests").or(rest.strip_suffix(" test")));
    count.is_some_and(|count| count.parse::<u64>().is_ok())
}

impl std::ops::AddAssign for Results {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(passed: u64, failed: u64, ignored: u64) -> Results {
        Results { passed, failed, ignored, open: false }
    }

    fn read(text: &str, success: bool) -> Results {
        let mut results = Results::default();
        text.lines().for_each(|line| results.read_line(line));
        results.end_of_run(success);
        results
    }

    #[test]
    fn closing_lines_are_summed_and_others_are_not() {
        let text = "running 3 tests\ntest a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; \
            finished in 0.00s\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n\
            7 passed, 7 failed\n";
        assert_eq!(read(text, false), sum(4, 2, 1));
    }

    #[test]
    fn each_program_that_died_is_a_failure() {
        let closed = "running 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        let died = "running 12 tests\ntest a ... ok\n";
        assert_eq!(read(&format!("{died}{closed}{died}"), false), sum(1, 2, 0));
        assert_eq!(read(&format!("{closed}{closed}"), true), sum(2, 0, 0));
        assert!(!is_opening("running late tests"));
    }

    #[test]
    fn a_run_that_died_is_a_failure() {
        assert_eq!(read("error: could not compile", false).failed, 1);
        assert_eq!(read("", true), Results::default());
    }

    #[test]
    fn runs_add_up() {
        let mut total = sum(1, 0, 2);
        total += sum(2, 1, 0);
        assert_eq!((total.executed(), total.ignored), (4, 2));
    }
}
