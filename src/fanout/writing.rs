//! Writing a round: its frames in the form that some subscribers get, each form once for all shards.

use std::sync::Arc;

use crate::clock::Iso8601;
use crate::dialect::deflated::Deflated;
use crate::dialect::envelope::{Form, Frames};
use crate::event::Round;
use crate::fanout::shared::Shared;
use crate::metrics::ShardMetrics;
use crate::proto::deflate::Deflater;
use crate::topic::topic::Topic;

/// What a shard writes with.
pub(super) struct Writing<'a> {
    pub(super) shared: &'a Shared,
    pub(super) metrics: &'a ShardMetrics,
    pub(super) iso: &'a mut Iso8601,
    pub(super) deflater: &'a mut Deflater,
}

impl Writing<'_> {
    /// Writes a round's frames where nobody else needs them: at the end of `bytes`, and where each ends into `ends`.
    pub(super) fn write(
        &mut self,
        round: &Round,
        form: Form<'_>,
        topic: &Arc<Topic>,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) {
        self.metrics.envelope_writes.add(round.events.len() as u64);
        let values = form.values.map(|values| &values[..]).unwrap_or_default();
        self.shared.envelopes.get(form.envelope).write(round, topic, values, self.iso, bytes, ends);
    }

    /// A round's frames for the subscribers of a topic: those that are there, or else written now.
    pub(super) fn frames(&mut self, round: &Round, form: Form<'_>, topic: &Arc<Topic>) -> Arc<Frames> {
        let template = self.shared.envelopes.get(form.envelope);
        let by_topic = round.several != 0 && topic.epoch().is_some() && template.is_by_topic();
        let by_topic = by_topic.then_some(topic);
        let plain_form = Form { deflated: false, ..form };
        let plain = round.frames(plain_form, by_topic, || {
            let mut frames = Frames::default();
            self.write(round, form, topic, &mut frames.bytes, &mut frames.ends);
            Arc::new(frames)
        });
        // The event's first topic decides, so that there is one compressed form of it at most.
        let above =
            form.deflated.then(|| self.shared.topics.rules().compress_above(round.category())).flatten();
        let Some(above) = above.filter(|above| *above <= plain.bytes.len()) else { return plain };
        round.frames(form, by_topic, || {
            let Some(deflated) = Deflated::of(&plain, above, self.deflater) else {
                return Arc::clone(&plain);
            };
            self.metrics.events_compressed.add(deflated.events);
            self.metrics.compressor_bytes_in.add(deflated.bytes_in);
            self.metrics.compressor_bytes_out.add(deflated.bytes_out);
            Arc::new(deflated.frames)
        })
    }
}
