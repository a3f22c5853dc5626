//! What may be spent, and when.

use proptest::prelude::*;

use super::*;

async fn the_daily_limit_rolls(place: Place) {
    let open = place.open();
    let at = |name: &str, value, hours: u64| Request { now: at(NOW + hours * HOUR), ..request(name, value) };
    fresh(&open.ledger, at("a", 6, 0)).await;
    fresh(&open.ledger, at("b", 4, 12)).await;
    let denied = |begun| match begun {
        Ok(Begun::Denied(denied)) => denied.rule == "daily_value",
        _ => false,
    };
    assert!(denied(open.ledger.begin(at("c", 1, 23)).await));
    let almost = Request { now: at("c", 1, 24).now - Duration::from_millis(1), ..at("c", 1, 24) };
    assert!(denied(open.ledger.begin(almost).await));
    fresh(&open.ledger, at("c", 6, 24)).await;
    assert!(denied(open.ledger.begin(at("d", 1, 35)).await));
    // A clock that goes back opens no second window: a little, it is as if it had stood still; more, and it is refused.
    let little = Request { now: at("d", 1, 24).now - Duration::from_secs(300), ..at("d", 1, 24) };
    assert!(denied(open.ledger.begin(little).await));
    let behind = Duration::from_secs(24 * HOUR);
    assert_eq!(open.ledger.begin(at("d", 1, 0)).await, Ok(Begun::ClockBehind(behind)));
    fresh(&open.ledger, at("d", 4, 36)).await;
    // Another chain, key or policy has its own.
    fresh(&open.ledger, Request { chain_id: 1, ..at("e", 10, 36) }).await;
    fresh(&open.ledger, Request { policy: "other".into(), ..at("f", 10, 36) }).await;
    let elsewhere = RequestId { key: "cold".into(), address: COLD, ..request("g", 0).id };
    fresh(&open.ledger, Request { id: elsewhere, ..at("g", 10, 36) }).await;
    // None at all.
    fresh(&open.ledger, Request { allowed: spending(U256::MAX, None), ..at("h", 0, 36) }).await;
    assert!(denied(open.ledger.begin(at("i", 1, 36)).await));
    open.close();
}

/// What docs/ledger.md has operators do, at this time.
fn recover(place: &Place, seconds: u64) {
    let docs = include_str!("../../../../docs/ledger.md");
    let (now, then) = match place {
        Place::Sqlite(_) => ("unixepoch()", seconds.to_string()),
        Place::Postgres(_) => ("extract(epoch FROM now())", format!("{seconds}::numeric")),
    };
    let command = docs.lines().find(|line| line.contains("UPDATE spends") && line.contains(now)).unwrap();
    place.hand(&command.rsplit('"').nth(1).unwrap().replace(now, &then)).unwrap();
}

async fn a_clock_that_ran_ahead_is_said_and_can_be_recovered_from(place: Place) {
    const YEARS: u64 = 24 * 3650;
    let open = place.open();
    let at = |name: &str, value, hours: u64| Request { now: at(NOW + hours * HOUR), ..request(name, value) };
    let denied = |begun| matches!(begun, Ok(Begun::Denied(_)));
    let behind = |hours: u64| Ok(Begun::ClockBehind(Duration::from_secs(hours * HOUR)));
    fresh(&open.ledger, at("a", 4, 0)).await;
    // The clock is years ahead for one request, and then right again.
    let ahead = fresh(&open.ledger, at("ahead", 6, YEARS)).await;
    assert_eq!(open.ledger.begin(at("b", 1, 1)).await, behind(YEARS - 1));
    assert_eq!(pending(open.ledger.begin(at("ahead", 6, 1)).await), ahead, "what is reserved is signed");
    // What spends nothing, or has no limit, or is counted elsewhere, goes on.
    fresh(&open.ledger, at("zero", 0, 1)).await;
    fresh(&open.ledger, Request { chain_id: 1, ..at("elsewhere", 10, 1) }).await;
    open.close();
    let open = place.open();
    assert_eq!(open.ledger.begin(at("b", 1, 2)).await, behind(YEARS - 2), "after a restart too");
    assert!(denied(open.ledger.begin(at("b", 5, YEARS + 23)).await), "where the clock was ahead, it is spent");
    open.close();

    recover(&place, NOW + 3 * HOUR);
    let open = place.open();
    assert!(denied(open.ledger.begin(at("b", 1, 3)).await), "4 and 6 of 10 are spent");
    fresh(&open.ledger, at("b", 4, 24)).await;
    assert!(denied(open.ledger.begin(at("c", 1, 26)).await), "from the recovery on, for 24 hours");
    fresh(&open.ledger, at("c", 6, 27)).await;
    assert!(denied(open.ledger.begin(at("d", 1, 28)).await));
    // Released, it is as if the clock had never been ahead.
    let ahead = fresh(&open.ledger, at("again", 4, YEARS)).await;
    assert_eq!(open.ledger.begin(at("d", 4, 48)).await, behind(YEARS - 48));
    open.ledger.release(ahead, UNIX_EPOCH).await.unwrap();
    fresh(&open.ledger, at("d", 4, 48)).await;
    open.close();
    let said = place.hand("SELECT created_at FROM transactions WHERE idempotency_key = 'ahead'").unwrap();
    assert_eq!(said, ((NOW + YEARS * HOUR) * 1000).to_string(), "what the clock said is kept");
}

async fn a_clock_that_is_a_little_behind_is_waited_for(place: Place) {
    let open = place.open();
    let at = |name: &str, value, seconds: u64| Request { now: at(NOW + seconds), ..request(name, value) };
    fresh(&open.ledger, at("a", 1, 300)).await;
    fresh(&open.ledger, at("b", 9, 0)).await;
    // It counts as of the first, not from five minutes before.
    assert!(matches!(open.ledger.begin(at("c", 1, 24 * HOUR + 299)).await, Ok(Begun::Denied(_))));
    fresh(&open.ledger, at("c", 10, 24 * HOUR + 300)).await;
    open.close();
}

/// Whatever the server's default is, each sees what the others have counted before its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_signers_spend_one_limit() {
    let place = Kind::Postgres.place();
    let Place::Postgres(database) = &place else { unreachable!() };
    let isolation = format!("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'", database.name);
    place.hand(&isolation).unwrap();
    let signers = [place.open(), place.open(), place.open()];
    let spends = spending(U256::ONE, Some(10)).spends;
    let exposure = Exposure { policy: "payouts".into(), address: HOT, chain_id: 137, spends, now: at(NOW) };
    let tasks: Vec<_> = (0..90)
        .map(|i| {
            let (ledger, exposure) = (signers[i % signers.len()].ledger.clone(), exposure.clone());
            tokio::spawn(async move { ledger.expose(exposure).await.unwrap() })
        })
        .collect();
    let mut counted = 0;
    for task in tasks {
        counted += u32::from(matches!(task.await.unwrap(), Exposed::Counted(_)));
    }
    assert_eq!(counted, 10);
    signers.into_iter().for_each(Open::close);
}

on_both!(
    the_daily_limit_rolls,
    a_clock_that_ran_ahead_is_said_and_can_be_recovered_from,
    a_clock_that_is_a_little_behind_is_waited_for
);

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The clock jumps both ways, minutes or years at once. Whatever was asked for less than 24 hours before the clock's
    /// hand, or in its future, counts as spent; what is released at any time counts no more; and what is refused for the
    /// clock is so only when something was counted ahead of it.
    #[test]
    fn a_clock_that_jumps_frees_no_allowance(
        kind in Kind::any(),
        steps in prop::collection::vec((prop_oneof![0..900u64, 0..48 * HOUR, 0..100_000 * HOUR], 0u64..6, any::<bool>()), 1..40),
    ) {
        let place = kind.place();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let open = place.open();
            // When it was asked for, as of when it is counted, what it spends.
            let mut spent: Vec<(u64, u64, u64, Reservation)> = Vec::new();
            for (i, (clock, value, release)) in steps.into_iter().enumerate() {
                let now = NOW + clock;
                let counted = spent.iter().filter(|(then, ..)| *then > now - 24 * HOUR).map(|(_, _, value, _)| value);
                let counted: u64 = counted.sum();
                let last = spent.iter().map(|(_, counted, ..)| *counted).max().unwrap_or(0);
                let request = Request { now: at(now), ..request(&i.to_string(), value) };
                match open.ledger.begin(request).await.unwrap() {
                    Begun::Fresh(reserved) => {
                        assert!(value == 0 || counted + value <= 10, "{counted} + {value}");
                        if release && !spent.is_empty() {
                            let (.., earlier) = spent.swap_remove(i % spent.len());
                            open.ledger.release(earlier, UNIX_EPOCH).await.unwrap();
                        }
                        spent.push((now, now.max(last), value, reserved.reservation));
                    }
                    Begun::ClockBehind(_) => {
                        assert!(value > 0 && last > now + 300, "{now} {spent:?}");
                    }
                    Begun::Denied(_) => {
                        // Never for nothing: all that is held is above the limit.
                        let held: u64 = spent.iter().map(|(_, _, value, _)| value).sum();
                        assert!(held + value > 10, "{held} + {value}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            open.close();
        });
    }

    /// Against a model that remembers everything: in every window of 24 hours the limit holds, and nothing that fits
    /// is denied.
    #[test]
    fn spending_is_exact(kind in Kind::any(), steps in prop::collection::vec((0u64..10 * HOUR, 0u64..6, any::<bool>()), 1..40)) {
        let place = kind.place();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let open = place.open();
            let mut now = NOW;
            let mut spent: Vec<(u64, u64)> = Vec::new();
            let mut last = None;
            for (i, (later, value, release)) in steps.into_iter().enumerate() {
                now += later;
                let window: u64 = spent.iter().filter(|(then, _)| *then > now - 24 * HOUR).map(|(_, value)| value).sum();
                let request = Request { now: at(now), ..request(&i.to_string(), value) };
                match open.ledger.begin(request).await.unwrap() {
                    Begun::Fresh(reserved) => {
                        assert!(value == 0 || window + value <= 10);
                        // Releases the one before, so that its value is taken out below this one.
                        if release && let Some((index, reservation)) = last.take() {
                            open.ledger.release(reservation, UNIX_EPOCH).await.unwrap();
                            spent.remove(index);
                        }
                        spent.push((now, value));
                        last = Some((spent.len() - 1, reserved.reservation));
                    }
                    Begun::Denied(_) => assert!(window + value > 10),
                    other => panic!("{other:?}"),
                }
            }
            open.close();
        });
    }
}
