"""Order of the training samples: reproducible, complete, resumable and divisible among processes."""

import numpy as np
import pytest

from datasets.batches.sampler import EqualSampler, IdentitySampler, RandomSampler

PIDS = np.repeat(np.arange(30), np.arange(30) % 9 + 1)


def identity(**more):
    return IdentitySampler(PIDS, 16, 4, 7, **more)


def random(**more):
    return RandomSampler(103, 16, 7, **more)


SETS = np.repeat([0, 1, 2], [80, 15, 8])


def equal(**more):
    return EqualSampler(SETS, 16, 7, **more)


def flat(batches):
    return np.concatenate(batches).tolist()


@pytest.mark.parametrize("make", [random, identity, equal])
def test_order_is_a_function_of_seed_and_epoch(make):
    assert flat(make().order(3)) == flat(make().order(3))
    assert flat(make().order(3)) != flat(make().order(4))


def test_seed_changes_the_order():
    assert flat(RandomSampler(50, 8, 0).order(1)) != flat(RandomSampler(50, 8, 1).order(1))
    assert flat(IdentitySampler(PIDS, 16, 4, 0).order(1)) != flat(IdentitySampler(PIDS, 16, 4, 1).order(1))


def test_equal_takes_as_many_samples_of_every_set():
    seen = set()
    for epoch in range(1, 21):
        samples = np.array(flat(equal().order(epoch)))
        assert np.bincount(SETS[samples]).tolist() == [34, 34, 34], "103 samples in three sets"
        times = np.bincount(samples, minlength=len(SETS))
        for number in range(3):
            assert np.ptp(times[number == SETS]) <= 1, "all of a set equally often, but for one"
        seen |= set(samples[SETS[samples] == 0].tolist())
    assert len(seen) == 80, "each epoch takes other samples of the larger set"
    assert [len(batch) for batch in equal().order(1)] == [16] * 6 + [6]


def test_random_takes_every_sample_once():
    batches = random().order(1)
    assert sorted(flat(batches)) == list(range(103))
    assert [len(batch) for batch in batches] == [16] * 6 + [7]
    assert [len(batch) for batch in RandomSampler(17, 16, 0).order(1)] == [16, 1]
    assert [len(batch) for batch in RandomSampler(1, 16, 0).order(1)] == [1]


@pytest.mark.parametrize("make", [random, identity, equal])
def test_starting_in_the_middle(make):
    sampler = make()
    sampler.set_epoch(2)
    whole = list(sampler)
    assert len(sampler) == len(whole) == sampler.num_batches(2)
    assert whole == list(sampler)
    sampler.set_epoch(2, skip=3)
    assert list(sampler) == whole[3:]
    assert len(sampler) == len(whole) - 3
    assert all(epoch == 2 and isinstance(index, int) for batch in whole for epoch, index in batch)
    sampler.set_epoch(3)
    assert list(sampler) != whole


@pytest.mark.parametrize("make", [random, identity, equal])
@pytest.mark.parametrize("world_size", [2, 4, 16])
def test_processes_share_each_batch(make, world_size):
    parts = [list(make(rank=rank, world_size=world_size)) for rank in range(world_size)]
    joined = [sum(batch, []) for batch in zip(*parts, strict=True)]
    assert joined == list(make())


def test_identity_batches_are_p_times_k():
    for epoch in range(1, 6):
        seen = []
        for batch in identity().order(epoch):
            groups = PIDS[batch].reshape(4, 4)
            assert (groups == groups[:, :1]).all()
            assert len(set(groups[:, 0])) == 4
            seen += [tuple(group) for group in batch.reshape(4, 4)]
        enough = [group for group in seen if (PIDS[group[0]] == PIDS).sum() >= 4]
        samples = [sample for group in enough for sample in group]
        assert len(samples) == len(set(samples))  # without replacement, across the epoch as well
        assert len({PIDS[group[0]] for group in seen}) >= 30 - 3


def test_identity_with_few_samples_repeats_them():
    batches = IdentitySampler([4, 4, 9], 8, 4, 0).order(1)
    assert len(batches) == 1
    assert sorted(np.asarray([4, 4, 9])[batches[0]].tolist()) == [4] * 4 + [9] * 4


def test_every_sample_is_reached_over_epochs():
    assert {index for epoch in range(40) for index in flat(identity().order(epoch))} == set(range(len(PIDS)))


def test_published_size_is_fast_and_close_to_an_epoch():
    pids = np.repeat(np.arange(11003), 6)
    batches = IdentitySampler(pids, 64, 4, 0).order(1)
    assert abs(len(batches) - 11003 * 4 // 64) <= 16


BAD = {
    "65 is not a multiple of --num_instance 4": lambda: IdentitySampler(PIDS, 65, 4, 0),
    "--num_instance 0": lambda: IdentitySampler(PIDS, 64, 0, 0),
    "takes 64 identities per batch, but there are only 30": lambda: IdentitySampler(PIDS, 64, 1, 0),
    "--batch_size 0: at least 1": lambda: RandomSampler(5, 0, 0),
    "0 training samples do not make a batch": lambda: RandomSampler(0, 4, 0),
    "--batch_size 9 is not a multiple of the 2 processes": lambda: RandomSampler(50, 9, 0, world_size=2),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_numbers(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_another_visit_has_another_order_and_says_so_in_its_keys():
    training, again = random(), random(visit=1)
    for sampler in (training, again):
        sampler.set_epoch(2)
    assert flat(training.order(2)) != flat(again.order(2)) and sorted(flat(again.order(2))) == list(range(103))
    assert [key for batch in again for key in batch] == [(2, index, 1) for index in flat(again.order(2))]
    assert all(len(key) == 2 for batch in training for key in batch)


def test_batches_alike_are_full_and_the_same_in_every_epoch():
    sampler = random(visit=1, alike=True)
    assert flat(sampler.order(1)) == flat(sampler.order(5))
    assert [len(batch) for batch in sampler.order(1)] == [16] * 7
    assert flat(sampler.order(1))[103:] == flat(sampler.order(1))[:9] and len(set(flat(sampler.order(1)))) == 103
    assert flat(RandomSampler(3, 8, 7, alike=True).order(1)) == flat(RandomSampler(3, 8, 7, alike=True).order(2))
