//! Tokens live through a restart; a revoked one is gone and its number is not used again.

use super::*;

fn new(hash: u8) -> NewToken {
    NewToken { hash: [hash; 32], name: format!("token {hash}"), scopes: "read send".into() }
}

#[tokio::test]
async fn a_token_is_kept_found_noted_and_revoked() {
    let bench = Bench::new();
    let store = bench.open();
    let first = store.add_token(new(1)).await.unwrap();
    let second = store.add_token(new(2)).await.unwrap();
    assert!(store.add_token(new(2)).await.is_err(), "one token, one hash");
    assert_eq!(store.token(&[1; 32]).unwrap(), Some(first.clone()));
    store.note_token_use(first.id, START).await.unwrap();
    store.close().await;

    let store = bench.open_as(NEXT);
    assert_eq!(store.token(&[1; 32]).unwrap(), Some(Token { used_at: Some(START), ..first.clone() }));
    let above = store.tokens(first.id, 10).await.unwrap();
    assert_eq!((above.len(), above.first()), (1, Some(&second)));
    assert_eq!(store.tokens(0, 1).await.unwrap().len(), 1);
    assert!(store.revoke_token(second.id).await.unwrap() && !store.revoke_token(second.id).await.unwrap());
    assert_eq!(store.token(&[2; 32]).unwrap(), None);
    assert!(store.add_token(new(3)).await.unwrap().id > second.id);
}
