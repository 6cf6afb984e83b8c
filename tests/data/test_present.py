"""Users as serving starts from them."""

import torch

from tests.conftest import make_data
from twotower.data.batches.present import present_features, present_seen


def test_history_ends_with_the_last_interaction_of_all_and_everything_counts_as_seen(data):
    users = torch.tensor([7, 0, 59])  # the last user's rows end the table
    history, seen = present_features(data, users)["history"], present_seen(data, users)
    for place, user in enumerate(users.tolist()):
        own = data.tables["interactions/item"][
            data.tables["interactions/user"] == user
        ]  # training, validation, test
        assert len(own) >= 5 and history[place].tolist() == (own[-4:] + 1).tolist()
        assert seen[place].tolist() == sorted(own.tolist())


def test_where_seen_items_may_come_again_none_are_left_out(tmp_path):
    data = make_data(tmp_path, mask_seen=False)
    data.setup()
    assert [len(items) for items in present_seen(data, torch.tensor([7, 0]))] == [0, 0]
