from gan.seeds import derive_seed


def test_streams_are_fixed_by_seed_and_name_and_fit_torch_and_numpy() -> None:
    seeds = {derive_seed(seed, name, part) for seed in (0, 1) for name in "ab" for part in range(100)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "order", 1) == 4374215849138048446
