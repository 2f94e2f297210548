//! The disk is full or fails, and the broker goes on as it can.

use super::world::World;

/// The broker looks for space again in time.
const FULL_PAUSE_MS: u64 = 1000;

impl World {
    /// There is no more space; then there is again, or the broker crashes.
    pub(super) fn fill_disk(&mut self) -> Result<(), String> {
        let room = 300 * self.random.below(4);
        self.note(|| format!("the disk is full in {room} bytes"));
        self.audit.may_close = true;
        let disk = self.sim().disk();
        let bytes = disk.bytes() as usize + room;
        disk.limit_capacity(bytes);
        self.suffer()?;
        if self.random.percent(30) {
            return self.restart(true);
        }
        self.note(|| "the disk has space again".into());
        self.sim().disk().heal();
        self.pass(FULL_PAUSE_MS)?;
        self.settle()?;
        self.audit.may_close = false;
        Ok(())
    }

    /// A sync fails. From there on the broker takes nothing, until another one is started.
    pub(super) fn fail_disk(&mut self) -> Result<(), String> {
        let count = self.random.below(4);
        self.note(|| format!("the disk fails after {count} syncs"));
        (self.audit.is_failing, self.audit.may_close) = (true, true);
        self.sim().disk().fail_syncs_after(count);
        self.suffer()?;
        self.restart(true)
    }

    fn suffer(&mut self) -> Result<(), String> {
        for _ in 0..5 {
            match self.random.below(10) {
                0..5 => self.publish(),
                5..8 => self.consume(),
                8 => self.pass(500)?,
                _ => self.join_somewhere()?,
            }
            match self.random.percent(60) {
                true => self.settle()?,
                false => self.run_a_little(),
            }
        }
        Ok(())
    }
}
