//! What makes each arm what it is, in full.

use maud::{Markup, html};

use super::{Ranked, Study};

/// Keys and values of all arms; nothing where the names say it all.
pub(super) fn section(study: &Study, ranking: &[Ranked]) -> Markup {
    let says_all = |arm: &super::Arm| {
        matches!(arm.settings.as_slice(), [] | [_]) && {
            arm.settings.iter().all(|(_, value)| *value == arm.name)
        }
    };
    if study.arms.iter().all(says_all) {
        return html! {};
    }
    html! {
        section {
            h2 { "Configs" }
            p.aside { "The keys in which the arms differ. Everything else is in the " code { "config.toml" } " of each run." }
            div.wide {
                table.configs {
                    thead { tr { th.number { "#" } th { "arm" } th { "key" } th { "value" } } }
                    tbody {
                        @for (place, one) in ranking.iter().enumerate() {
                            @let settings = study.arms.get(one.arm).map_or(&[][..], |arm| &arm.settings);
                            @for (number, (key, value)) in settings.iter().enumerate() {
                                tr {
                                    @if number == 0 {
                                        td.number rowspan=(settings.len()) { (place + 1) }
                                        td.name rowspan=(settings.len()) { (one.name) }
                                    }
                                    td { code { (key) } }
                                    td { code { (value) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
