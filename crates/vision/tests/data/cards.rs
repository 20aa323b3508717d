use ophidian_vision::cards;

use crate::common::{error, says};

#[test]
fn cards_are_complete() {
    let cards = cards::all().unwrap();
    assert_eq!(
        cards.iter().map(|card| card.name.as_str()).collect::<Vec<_>>(),
        ["mnist", "fashion-mnist", "cifar10", "cifar100", "shapes", "motions"]
    );
    for card in cards {
        assert!(!card.what.is_empty() && !card.licence.is_empty(), "{}", card.name);
        assert!(card.splits.contains_key("train") && card.splits.contains_key("test"));
        assert_eq!(card.files.is_empty(), ["shapes", "motions"].contains(&card.format.as_str()));
        assert_eq!(card.sources.is_empty(), card.files.is_empty());
        assert_eq!(card.mean.len(), card.std.len());
        for file in &card.files {
            assert!(file.bytes > 0);
            assert!(
                file.sha256.len() == 64
                    && file.sha256.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
            );
            assert!(!file.name.contains(['/', '\\']));
        }
    }
    assert_eq!(cards::named("shapes").unwrap().classes, ophidian_vision::shapes::classes());
    assert_eq!(cards::named("motions").unwrap().classes, ophidian_vision::video::motions::classes());
}

#[test]
fn the_nearest_card_is_named() {
    says(
        &error(cards::named("fashion_mnist")),
        &["no data set `fashion_mnist`", "did you mean `fashion-mnist`?"],
    );
    says(&error(cards::named("imagenet")), &["there are mnist, fashion-mnist"]);
}
